// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/leading"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Environment variables of the operator's Deployment. The image names follow the convention of the Operator Lifecycle
// Manager, so that mirrors of disconnected clusters find them.
const (
	EnvNamespace  = "POD_NAMESPACE"
	EnvImage      = "RELATED_IMAGE_FAIRWAY"
	EnvEnvoyImage = "RELATED_IMAGE_ENVOY"
)

// DefaultAutomaticLinger outlasts a route that is deleted and created again, as some deployment tools do.
const DefaultAutomaticLinger = 30 * time.Second

// Options are what the reconcilers need from the rest of the operator.
type Options struct {
	// Namespace of the operator and of the node proxies.
	Namespace string
	// Image of the agent, EnvoyImage of the proxies.
	Image, EnvoyImage string
	// clusterDomain is the suffix of Service names; names.DefaultClusterDomain if empty.
	clusterDomain string

	// Certificates keeps the mesh's CA.
	Certificates Certificates
	// CertificatesChanged, if set, makes the Mesh reconcile.
	CertificatesChanged *Trigger

	// NodeReports tell what the agents report; nil for none.
	NodeReports func() []NodeReport
	// RefusedClaims are claims of pods to an address that don't count; nil for none.
	RefusedClaims func() []ingest.RefusedClaim
	// NodesChanged, if set, makes the Mesh reconcile.
	NodesChanged *Trigger

	// Programmed tells how far a waypoint's proxies are.
	Programmed ProgrammedProbe
	// ProgrammedChanged is notified with the Gateway whose answer may have changed.
	ProgrammedChanged *Trigger

	// AutomaticWaypoints tells whether a namespace needs an automatic waypoint. While that is not known, as in an operator
	// that has not read the cluster yet, nothing is made and nothing removed.
	AutomaticWaypoints func(namespace string) (needed, known bool)
	// AutomaticChanged is notified with the namespace (as Name) whose answer may have changed.
	AutomaticChanged *Trigger
	// AutomaticLinger is how long an automatic waypoint stays after its namespace stopped needing it;
	// DefaultAutomaticLinger if zero.
	AutomaticLinger time.Duration

	// StatusesCleared tells whether the statuses of routes and Services say nothing of the mesh any more; nil for yes. A
	// Mesh that is deleted waits for it, for a while.
	StatusesCleared func() bool

	// Lead is waited for before anything is reconciled; nil: there is one replica.
	Lead *leading.Lead

	// DeployRetry is how soon a waypoint that the cluster refused to deploy is tried again; 30 s if zero.
	DeployRetry time.Duration
	// releaseTimeout bounds how long the deletion of a Mesh waits until agents have let their pods go, and releaseGrace
	// is how long node proxies stay after that, for senders that have yet to hear of it; 45 s and 5 s if zero.
	releaseTimeout, ReleaseGrace time.Duration

	// features that GatewayClass and XMesh publish; defaultFeatures if nil.
	features []features.FeatureName
}

// ProgrammedProbe tells how many proxies of a waypoint have acknowledged what makes it serve. rejected is what a proxy
// said when it rejected some of its configuration; empty if none did.
type ProgrammedProbe func(gateway types.NamespacedName) (acked int, rejected string)

// Certificates keeps the CA that the Mesh asks for. Errors are the API server's, to be retried; what a person must mend
// is in the status.
type Certificates interface {
	Reconcile(ctx context.Context, mesh *v1alpha1.Mesh) (CertificatesStatus, error)
}

// CertificatesStatus is how the CA stands.
type CertificatesStatus struct {
	// Ready: the CA is the one that the Mesh asks for. Signing: there is one to sign with, perhaps the former.
	Ready, Signing bool
	// Reason is one of v1alpha1.MeshReason*, Message for people.
	Reason, Message string
	// Renewal is how the renewal of what was issued stands.
	Renewal RenewalStatus
	// Next is when to look again; zero for no need.
	Next time.Time
}

// RenewalStatus says why certificates can't be renewed; the zero value where they can.
type RenewalStatus struct {
	// Reason is one of v1alpha1.MeshReason*, Message for people; empty while nothing fails.
	Reason, Message string
	// Lost: some identities have no valid certificate any more.
	Lost bool
}

// NodeReport is what the agent of a node says.
type NodeReport struct {
	Node string
	// Captured is the number of captured pods.
	Captured int
	// Problems name pods that could not be captured, and why.
	Problems []string
}

// Setup adds all reconcilers to the manager. Those of kinds that the cluster does not serve start when it does.
func Setup(mgr ctrl.Manager, kinds *Kinds, o Options) error {
	switch {
	case o.Namespace == "" || o.Image == "" || o.EnvoyImage == "":
		return errors.New("controllers: Namespace, Image and EnvoyImage must be set")
	case o.Certificates == nil || o.Programmed == nil || o.AutomaticWaypoints == nil:
		return errors.New("controllers: Certificates, Programmed and AutomaticWaypoints must be set")
	}
	if o.clusterDomain == "" {
		o.clusterDomain = names.DefaultClusterDomain
	}
	o.AutomaticLinger = cmp.Or(o.AutomaticLinger, DefaultAutomaticLinger)
	o.DeployRetry = cmp.Or(o.DeployRetry, 30*time.Second)
	o.releaseTimeout = cmp.Or(o.releaseTimeout, 45*time.Second)
	o.ReleaseGrace = cmp.Or(o.ReleaseGrace, 5*time.Second)
	if o.features == nil {
		o.features = defaultFeatures()
	}
	for _, t := range []**Trigger{&o.CertificatesChanged, &o.NodesChanged, &o.ProgrammedChanged, &o.AutomaticChanged} {
		if *t == nil {
			*t = NewTrigger()
		}
	}
	var errs []error
	for name, setup := range map[string]func(ctrl.Manager, *Kinds, Options) error{
		"mesh":               setupMesh,
		"gatewayclass":       setupGatewayClass,
		"waypoint":           setupWaypoint,
		"automatic-waypoint": setupAutomatic,
		"xmesh":              setupXMesh,
	} {
		if err := setup(mgr, kinds, o); err != nil {
			errs = append(errs, fmt.Errorf("set up controller %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Uncached are kinds that are read from the API server: the operator may read its own objects of them, and no others.
func Uncached() []client.Object {
	return []client.Object{
		&admissionregistrationv1.ValidatingAdmissionPolicy{},
		&admissionregistrationv1.ValidatingAdmissionPolicyBinding{},
	}
}

// CacheByObject restricts the manager's cache to what the reconcilers need of kinds that others fill: of these, only
// objects that the operator manages. The lookup of one that it does not manage goes to the API server.
func CacheByObject(namespace string) map[client.Object]cache.ByObject {
	managed := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{names.LabelManagedBy: names.ManagedBy})}
	system := cache.ByObject{Namespaces: map[string]cache.Config{namespace: {}}}
	return map[client.Object]cache.ByObject{
		&appsv1.Deployment{}:                     managed,
		&appsv1.ReplicaSet{}:                     managed,
		&appsv1.DaemonSet{}:                      system,
		&corev1.ServiceAccount{}:                 managed,
		&corev1.ConfigMap{}:                      managed,
		&corev1.Secret{}:                         system,
		&policyv1.PodDisruptionBudget{}:          managed,
		&autoscalingv2.HorizontalPodAutoscaler{}: managed,
	}
}
