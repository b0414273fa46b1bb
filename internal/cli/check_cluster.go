// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/gatewayapi"
	"github.com/fairway-mesh/fairway/internal/names"
)

// What a cluster needs, as docs/install.md says it.
var (
	oldestKubernetes = version.MajorMinor(1, 33)
	// scopedKubernetes is the first whose agents need no right to read the pods of all nodes.
	scopedKubernetes = version.MajorMinor(1, 36)
	// Kernels with which connections are limited by caller, and with which a node's proxy is replaced without a reset.
	limitingKernel = version.MajorMinor(5, 11)
	takeoverKernel = version.MajorMinor(5, 14)
)

func (k *checker) checkKubernetes() {
	c := checked{Check: "Kubernetes", State: checkOK, Found: k.version, Docs: docsNeeds}
	v, err := version.ParseGeneric(k.version)
	switch {
	case err != nil:
		c.State, c.Found = checkUnknown, "the API server doesn't say its version"
	case v.LessThan(oldestKubernetes):
		c.State, c.Do = checkFailed, fmt.Sprintf("upgrade to %s or later", oldestKubernetes)
	case v.LessThan(scopedKubernetes):
		c.State = checkWarning
		c.Do = "apply agents-before-1.36.yaml of the release as well (the Helm chart and make deploy do): agents need the " +
			"right to read all pods there"
	}
	k.say(c)
}

func (k *checker) checkGatewayAPI(ctx context.Context) {
	c := checked{Check: "Gateway API", State: checkOK, Docs: docsNeeds}
	crd := &metav1.PartialObjectMetadata{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{
		Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition",
	})
	err := k.client.Get(ctx, types.NamespacedName{Name: "httproutes." + gwv1.GroupName}, crd)
	installed := gatewayapi.Of(crd.Annotations)
	c.Found = strings.TrimSpace(installed.Bundle + ", channel " + installed.Channel)
	switch {
	case apierrors.IsNotFound(err):
		c.State, c.Found = checkWarning, "its kinds are not installed: there will be no routes and no waypoints"
		c.Do = "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/" +
			gatewayapi.Built + "/standard-install.yaml"
	case err != nil:
		c.State, c.Found = checkUnknown, "its CRDs can't be read: "+plainly(err)
	case !installed.Known():
		c.State, c.Found = checkWarning, "its kinds are installed, and say no version"
		c.Do = "make sure that they are of release " + gatewayapi.Built
	case installed.Older():
		c.State, c.Do = checkWarning, "install "+gatewayapi.Built+": older ones lack kinds and fields"
	case installed.Newer():
		c.State = checkWarning
		c.Do = "nothing, unless a field is not heeded: this command's mesh is made for " + gatewayapi.Supported
	case installed.Lacking() != "":
		c.Found += " (" + installed.Lacking() + ")"
	}
	k.say(c)
}

// nodeTroubles are the nodes with something that is missing, by what it is.
type nodeTroubles struct{ runtimes, old, older, noRange groups }

func (k *checker) checkNodes(ctx context.Context) {
	c := checked{Check: "nodes", State: checkOK, Docs: docsNeeds}
	var nodes corev1.NodeList
	if err := k.client.List(ctx, &nodes); err != nil {
		c.State, c.Found = checkUnknown, "nodes can't be listed: "+plainly(err)
		k.say(c)
		return
	}
	var of nodeTroubles
	linux := 0
	for i := range nodes.Items {
		n := &nodes.Items[i]
		if n.Status.NodeInfo.OperatingSystem == "linux" {
			linux++
			of.add(n)
		}
	}
	c.Found = fmt.Sprintf("%d of %d run Linux", linux, len(nodes.Items))
	if others := len(nodes.Items) - linux; others > 0 {
		c.Found += "; pods on the others are not in the mesh"
	}
	if linux == 0 {
		c.State, c.Do = checkFailed, "add Linux nodes: no other can be in the mesh"
	}
	k.say(c)
	k.sayNodes(checkFailed, "container runtime", of.runtimes,
		"use containerd, k3s or CRI-O: agents find the sockets of no other")
	k.sayNodes(checkWarning, "kernel", of.older,
		"use Linux 5.14: before 5.11 connections to pods are not limited by caller, and before 5.14 a few connections are "+
			"reset when a node proxy is replaced")
	k.sayNodes(checkWarning, "kernel", of.old,
		"use Linux 5.14: before, a few connections are reset when a node proxy is replaced")
	if k.mesh == nil || k.mesh.Spec.Network == nil || len(k.mesh.Spec.Network.PodCIDRs) == 0 {
		k.sayNodes(checkWarning, "pod ranges", of.noRange,
			"set spec.network.podCIDRs of the Mesh to the ranges of the network plugin")
	}
}

func (t *nodeTroubles) add(n *corev1.Node) {
	info := n.Status.NodeInfo
	if runtime, _, _ := strings.Cut(info.ContainerRuntimeVersion, "://"); runtime != "containerd" && runtime != "cri-o" {
		t.runtimes.add(info.ContainerRuntimeVersion, n.Name)
	}
	switch v, err := version.ParseGeneric(info.KernelVersion); {
	case err != nil:
	case v.LessThan(limitingKernel):
		t.older.add(info.KernelVersion, n.Name)
	case v.LessThan(takeoverKernel):
		t.old.add(info.KernelVersion, n.Name)
	}
	if len(n.Spec.PodCIDRs) == 0 {
		t.noRange.add("no spec.podCIDRs", n.Name)
	}
}

// sayNodes says which nodes have something that is to be different.
func (k *checker) sayNodes(state, check string, of groups, do string) {
	for _, what := range of.words {
		k.say(checked{
			Check: check, State: state, Found: what + " (" + enumerate(of.members[what]) + ")", Do: do, Docs: docsNeeds,
		})
	}
}

// checkVersions compares what runs with this program.
func (k *checker) checkVersions(ctx context.Context) {
	c := checked{Check: "versions", State: checkOK, Docs: docsUpgrade}
	if !k.installed {
		c.Found = "the mesh is not installed yet"
		k.say(c)
		return
	}
	var operator appsv1.Deployment
	var nodes appsv1.DaemonSet
	images := map[string][]corev1.Container{}
	for _, part := range []struct {
		name string
		get  func() error
		of   func() []corev1.Container
	}{
		{"operator", func() error {
			return k.client.Get(ctx, types.NamespacedName{Namespace: k.system, Name: names.OperatorDeployment}, &operator)
		}, func() []corev1.Container { return operator.Spec.Template.Spec.Containers }},
		{"node proxies", func() error {
			return k.client.Get(ctx, types.NamespacedName{Namespace: k.system, Name: names.NodeDaemonSet}, &nodes)
		}, func() []corev1.Container { return nodes.Spec.Template.Spec.Containers }},
	} {
		switch err := part.get(); {
		case apierrors.IsNotFound(err):
		case err != nil:
			c.State, c.Found = checkUnknown, part.name+" can't be read: "+plainly(err)
			k.say(c)
			return
		default:
			images[part.name] = part.of()
		}
	}
	k.compareVersions(ctx, c, images)
}

// compareVersions goes by the tags of images; one that is named by its digest says nothing.
func (k *checker) compareVersions(ctx context.Context, c checked, images map[string][]corev1.Container) {
	said := []string{"this command " + names.Version}
	differ := false
	for _, part := range []string{"operator", "node proxies"} {
		for _, container := range images[part] {
			if container.Name != "operator" && container.Name != "agent" {
				continue
			}
			tag := tagOf(container.Image)
			if tag == "" {
				continue
			}
			said = append(said, part+" "+tag)
			differ = differ || tag != names.Version
		}
	}
	c.Found = strings.Join(said, ", ")
	if differ {
		c.State, c.Do = checkWarning, toOneVersion
	}
	if missing := k.missingKinds(ctx); len(missing) > 0 {
		c.State, c.Found = checkFailed, "CRDs of an older version: no "+and(missing)
		c.Do = "kubectl apply --server-side -k config/default of this command's version (" + names.Version + ")"
	}
	k.say(c)
}

// tagOf is the tag of an image; empty where it has none.
func tagOf(image string) string {
	image, _, _ = strings.Cut(image, "@")
	at := strings.LastIndex(image, ":")
	if at < strings.LastIndex(image, "/") || at < 0 {
		return ""
	}
	return image[at+1:]
}

// missingKinds are those of the mesh that this program knows and the cluster doesn't.
func (k *checker) missingKinds(ctx context.Context) (out []string) {
	for kind, list := range map[string]client.ObjectList{
		"ProxyParameters": &v1alpha1.ProxyParametersList{}, "AuthenticationPolicy": &v1alpha1.AuthenticationPolicyList{},
		"AuthorizationPolicy": &v1alpha1.AuthorizationPolicyList{}, "TrafficPolicy": &v1alpha1.TrafficPolicyList{},
		"HTTPExtension": &v1alpha1.HTTPExtensionList{},
	} {
		if err := k.client.List(ctx, list, client.Limit(1)); meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			out = append(out, kind)
		}
	}
	slices.Sort(out)
	return out
}
