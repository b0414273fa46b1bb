// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/explain"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// collector gathers what a report is made of. What it can't read it names, and goes on with the rest.
type collector struct {
	*cluster
	system string
	// namespace that alone is looked at; "": all.
	namespace string
	findings

	mesh *v1alpha1.Mesh
	// meshUnknown: whether there is a Mesh could not be asked.
	meshUnknown bool
	namespaces  map[string]*corev1.Namespace
	pods        []corev1.Pod
	deployments map[types.NamespacedName]*appsv1.Deployment
	services    []corev1.Service
	gateways    []gwv1.Gateway
	// gatewaysRead: they are all that there are.
	gatewaysRead bool
	routes       []meshRoute
	policies     []v1alpha1.AuthenticationPolicy
	others       []policyList
	// more are objects of further kinds; see readMore.
	more []client.Object
	// unread are the kinds that could not be listed: nothing may be concluded from there being none. forbidden are
	// those of them that the user has no right to; absent those that the cluster doesn't have.
	unread, absent map[string]bool
	forbidden      []string
	// failed are the others, by why.
	failed groups
	// meaning of the objects, as the operator would see it; nil where too little could be read.
	meaning *explain.Mesh
	// operator is what is known of its replicas.
	operator operatorState

	// report of the whole mesh. Findings are the collector's until it is done.
	report report
}

// Kinds by the names that sentences have for them.
const (
	whatNamespaces  = "namespaces"
	whatPods        = "pods"
	whatNodes       = "nodes"
	whatServices    = "Services"
	whatDeployments = "Deployments"
	whatGateways    = "Gateways"
	whatHTTPRoutes  = "HTTPRoutes"
	whatGRPCRoutes  = "GRPCRoutes"
)

func newCollector(c *cluster, system, namespace string) *collector {
	return &collector{
		cluster: c, system: system, namespace: namespace,
		namespaces:  map[string]*corev1.Namespace{},
		deployments: map[types.NamespacedName]*appsv1.Deployment{},
		unread:      map[string]bool{},
		absent:      map[string]bool{},
	}
}

// collect asks everything once; proxies again while they have not settled.
func collect(ctx context.Context, c *cluster, system string) report {
	k := newCollector(c, system, "")
	k.readMesh(ctx)
	k.readObjects(ctx)
	k.judgeOperator(ctx)
	k.judgeMesh()
	k.readNodes(ctx)
	k.readWaypoints()
	k.judgeServices()
	k.judgePolicies()
	k.readProxies(ctx)
	k.readPlaintext(ctx)
	k.sayForbidden()
	k.sayFailed()
	k.sorted()
	k.report.findings, k.report.Healthy = k.findings, k.well()
	return k.report
}

// sayForbidden says in one sentence what the user has no right to.
func (k *collector) sayForbidden() {
	if len(k.forbidden) > 0 {
		k.unknown("you have no right to read %s: see %s, or use -n NAMESPACE, which shows a namespace alone, with the "+
			"rights of its users", and(k.forbidden), docsRights)
	}
}

// sayFailed says what else could not be read, once for all that failed alike.
func (k *collector) sayFailed() {
	for _, why := range k.failed.words {
		k.unknown("%s can't be read: %s", and(k.failed.members[why]), why)
	}
}

// list reads a kind; what is not installed is empty.
func (k *collector) list(ctx context.Context, what string, into client.ObjectList, opts ...client.ListOption) {
	if k.namespace != "" {
		opts = append(opts, client.InNamespace(k.namespace))
	}
	switch err := k.client.List(ctx, into, opts...); {
	case err == nil:
	case meta.IsNoMatchError(err) || apierrors.IsNotFound(err):
		k.absent[what] = true
	case k.unread[what]: // said already
	default:
		k.unread[what] = true
		k.Unread = append(k.Unread, what)
		if apierrors.IsForbidden(err) {
			k.forbidden = append(k.forbidden, what)
			return
		}
		k.failed.add(plainly(err), what)
	}
}

// readObjects reads what several parts of the report need.
func (k *collector) readObjects(ctx context.Context) {
	k.readNamespaces(ctx)
	var pods corev1.PodList
	k.list(ctx, whatPods, &pods)
	k.pods = pods.Items
	slices.SortFunc(k.pods, func(a, b corev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var deployments appsv1.DeploymentList
	k.list(ctx, whatDeployments, &deployments, client.MatchingLabels{names.LabelManagedBy: names.ManagedBy})
	for i := range deployments.Items {
		d := &deployments.Items[i]
		k.deployments[client.ObjectKeyFromObject(d)] = d
	}
	var services corev1.ServiceList
	k.list(ctx, whatServices, &services)
	k.services = services.Items
	slices.SortFunc(k.services, func(a, b corev1.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	k.readGateways(ctx)
	k.listRoutes(ctx)
	k.listPolicies(ctx)
	k.understand()
}

// readNamespaces lists them, or reads the one.
func (k *collector) readNamespaces(ctx context.Context) {
	if k.namespace == "" {
		var namespaces corev1.NamespaceList
		k.list(ctx, whatNamespaces, &namespaces)
		for i := range namespaces.Items {
			k.namespaces[namespaces.Items[i].Name] = &namespaces.Items[i]
		}
		return
	}
	n := &corev1.Namespace{}
	switch err := k.client.Get(ctx, types.NamespacedName{Name: k.namespace}, n); {
	case err == nil:
		k.namespaces[n.Name] = n
	case apierrors.IsNotFound(err):
		k.absent[whatNamespaces] = true
		k.problem(notEnrolled, "Namespace "+k.namespace, "there is no namespace %s", k.namespace)
	default:
		k.unread[whatNamespaces] = true
		k.unknown("namespace %s can't be read: %s", k.namespace, plainly(err))
	}
}

// understand has the operator's own code say what the objects mean, unless too little could be read for that. It is
// asked so that what holds is known while the operator doesn't run, too.
func (k *collector) understand() {
	if k.unread[whatNamespaces] || k.unread[whatServices] || k.unread[whatGateways] {
		return
	}
	mesh := k.mesh
	switch {
	case mesh == nil && !k.meshUnknown:
		return // nothing means anything without a Mesh
	case mesh == nil:
		mesh = &v1alpha1.Mesh{}
		mesh.Name = names.Mesh
	}
	objects := []client.Object{mesh}
	for _, n := range k.namespaces {
		objects = append(objects, n)
	}
	objects = appendAll(objects, k.pods)
	objects = appendAll(objects, k.services)
	objects = appendAll(objects, k.gateways)
	objects = appendAll(objects, k.policies)
	for _, r := range k.routes {
		objects = append(objects, r.Object)
	}
	for _, all := range k.others {
		_ = meta.EachListItem(all.list, func(o runtime.Object) error { // an error says that it is no list
			if obj, ok := o.(client.Object); ok {
				objects = append(objects, obj)
			}
			return nil
		})
	}
	k.meaning = explain.Of(append(objects, k.more...))
}

func appendAll[T any, P interface {
	*T
	client.Object
}](to []client.Object, all []T,
) []client.Object {
	for i := range all {
		to = append(to, P(&all[i]))
	}
	return to
}

// enrolled tells whether a namespace is known to be in the mesh.
func (k *collector) enrolled(namespace string) bool { return member.Enrolled(k.namespaces[namespace]) }
