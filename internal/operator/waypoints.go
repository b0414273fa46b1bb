// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// watchWaypoints starts the watches that Waypoint reads: every replica is asked, also one that runs no controllers, and
// a proxy should not wait for a first look.
func watchWaypoints(ctx context.Context, c cache.Cache) error {
	for _, obj := range []client.Object{&corev1.ServiceAccount{}, &appsv1.Deployment{}, replicaSet()} {
		if _, err := c.GetInformer(ctx, obj, cache.BlockUntilSynced(false)); err != nil {
			return err
		}
	}
	return nil
}

// replicaSet is what is read of a ReplicaSet: its metadata, which names its owner.
func replicaSet() *metav1.PartialObjectMetadata {
	rs := &metav1.PartialObjectMetadata{}
	rs.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
	return rs
}

// waypoint says why a pod is not one of a Gateway's waypoint; nil if it is. Labels prove nothing: the namespace must be
// enrolled, and the pod must come, UID by UID, from the Deployment that the operator made for the Gateway, with the
// account that it made for it. Who may write owner references in the namespace can forge that chain, and could replace
// the waypoint's pods as well; the enrolment is not theirs to write.
func (p pods) waypoint(pod auth.Pod, gateway string) error {
	if !member.Enrolled(p.namespace(pod.Namespace)) {
		return forbidden("namespace %s is not enrolled: label it %s=%s", pod.Namespace, names.LabelMesh, names.MeshEnabled)
	}
	g, err := p.gateway(pod.Namespace, gateway)
	if err != nil {
		return err
	}
	name := names.WaypointResource(gateway)
	account := &corev1.ServiceAccount{}
	if err := p.get(pod.Namespace, name, account); err != nil {
		return err
	}
	if pod.ServiceAccount != name || !controllers.MadeFor(account, g.UID) {
		return forbidden("service account %s/%s is not the one that the operator made for Gateway %s", pod.Namespace,
			pod.ServiceAccount, gateway)
	}
	return p.madeBy(pod, g)
}

// gateway finds a Gateway that is a waypoint of ours.
func (p pods) gateway(namespace, name string) (*gwv1.Gateway, error) {
	g := &gwv1.Gateway{}
	if err := p.get(namespace, name, g); err != nil {
		return nil, err
	}
	class := &gwv1.GatewayClass{}
	err := p.reader.Get(context.Background(), client.ObjectKey{Name: string(g.Spec.GatewayClassName)}, class)
	if apierrors.IsNotFound(err) {
		class, err = nil, nil
	}
	if err != nil {
		return nil, unavailable(err)
	}
	if !ingest.IsWaypoint(g, class) {
		return nil, forbidden("Gateway %s/%s is not a waypoint of this mesh", namespace, name)
	}
	return g, nil
}

// madeBy follows the pod's owners to the Gateway's Deployment.
func (p pods) madeBy(of auth.Pod, g *gwv1.Gateway) error {
	pod, rs, deployment := &corev1.Pod{}, replicaSet(), &appsv1.Deployment{}
	if err := p.get(of.Namespace, of.Name, pod); err != nil {
		return err
	}
	if string(pod.UID) != of.UID {
		return forbidden("pod %s/%s has been replaced", of.Namespace, of.Name)
	}
	stranger := forbidden("pod %s/%s is not one of the Deployment that the operator made for Gateway %s", of.Namespace,
		of.Name, g.Name)
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil || owner.Kind != "ReplicaSet" {
		return stranger
	}
	// Only those of waypoints are watched, so one that isn't there is hardly ever late, and asking again helps then, too.
	if err := p.get(of.Namespace, owner.Name, rs); apierrors.IsNotFound(err) {
		return stranger
	} else if err != nil {
		return err
	}
	if !metav1.IsControlledBy(pod, rs) {
		return stranger
	}
	if err := p.get(of.Namespace, names.WaypointResource(g.Name), deployment); err != nil {
		return err
	}
	if !metav1.IsControlledBy(rs, deployment) || !controllers.MadeFor(deployment, g.UID) {
		return stranger
	}
	return nil
}

// get reads an object from the cache. One that is not there may only be late: whoever asks will ask again.
func (p pods) get(namespace, name string, out client.Object) error {
	if err := p.reader.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, out); err != nil {
		return unavailable(err)
	}
	return nil
}

func forbidden(format string, args ...any) error {
	return fmt.Errorf("%w: %s", auth.ErrForbidden, fmt.Sprintf(format, args...))
}

func unavailable(err error) error { return errors.Join(auth.ErrUnavailable, err) }
