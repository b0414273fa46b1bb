// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

const docsUninstall = docsBase + "install.md#uninstall"

// removal is what an uninstallation deletes and leaves, as it was found.
type removal struct {
	// cluster is how it is called.
	cluster string
	system  string
	// mesh is nil where there is none any more.
	mesh *v1alpha1.Mesh
	// daemonSet tells whether there is one, with so many nodes' proxies.
	daemonSet bool
	nodes     int32
	// operators that are ready.
	operators int32
	// captured pods, automatic waypoints and Gateways of users; -1: they could not be asked for.
	captured, automatic, gateways int
	// strict are namespaces whose pods refuse plain text.
	strict []string
	by     installer
}

// installer is what has installed the operator.
type installer struct {
	// name of it, for people.
	name string
	// next are the commands that remove the operator, crds those that remove the kinds and what was made of them.
	next, crds []string
	// restores names what would create it, or the Mesh, again; "": nothing.
	restores string
}

func daemonSetName(system string) string { return system + "/" + names.NodeDaemonSet }

// planRemoval is an error where the mesh's parts are in another namespace: whether they are gone is then asked of the
// wrong one.
func planRemoval(ctx context.Context, c *cluster, system string) (*removal, error) {
	k := newCollector(c, system, "")
	k.readMesh(ctx)
	if k.meshUnknown {
		return nil, errors.New("whether there is a Mesh could not be asked: " + k.whyUnread(whatMesh))
	}
	k.readObjects(ctx)
	p := &removal{cluster: c.called, system: system, mesh: k.mesh}
	left, gone, err := nodeProxies(ctx, c.client, system)
	if err != nil {
		return nil, fmt.Errorf("DaemonSet %s can't be read: %s", daemonSetName(system), plainly(err))
	}
	p.daemonSet, p.nodes = !gone, left
	p.count(k)
	d := &appsv1.Deployment{}
	err = c.client.Get(ctx, types.NamespacedName{Namespace: system, Name: names.OperatorDeployment}, d)
	switch {
	case apierrors.IsNotFound(err):
		d = nil
	case err != nil:
		return nil, fmt.Errorf("the operator's Deployment %s/%s can't be read: %s", system, names.OperatorDeployment,
			plainly(err))
	default:
		p.operators = d.Status.ReadyReplicas
	}
	if d == nil && gone {
		if err := elsewhere(ctx, c.client, p); err != nil {
			return nil, err
		}
	}
	older := c.client.Get(ctx, types.NamespacedName{Name: agentsBefore136}, &rbacv1.ClusterRole{}) == nil
	p.by = installerOf(d, p.mesh, system, older, mayDelete(ctx, c.client, system))
	return p, nil
}

// agentsBefore136 is the ClusterRole of config/agents-before-1.36.
const agentsBefore136 = "fairway-node-pods"

// nodeProxies are how many there are of the DaemonSet, and whether that is gone.
func nodeProxies(ctx context.Context, c client.Client, system string) (left int32, gone bool, err error) {
	d := &appsv1.DaemonSet{}
	err = c.Get(ctx, types.NamespacedName{Namespace: system, Name: names.NodeDaemonSet}, d)
	if apierrors.IsNotFound(err) {
		return 0, true, nil
	}
	return d.Status.CurrentNumberScheduled, false, err
}

// elsewhere looks in all namespaces for what is not in the one that was named. What has the right label and name in
// another need not be the mesh's, so what is in the one that was named comes first.
func elsewhere(ctx context.Context, c client.Client, p *removal) error {
	for _, of := range []struct {
		list      client.ObjectList
		component string
		name      string
	}{
		{&appsv1.DeploymentList{}, names.ComponentOperator, names.OperatorDeployment},
		{&appsv1.DaemonSetList{}, names.ComponentNode, names.NodeDaemonSet},
	} {
		if err := c.List(ctx, of.list, client.MatchingLabels{names.LabelComponent: of.component}); err != nil {
			return fmt.Errorf("namespace %s has neither the operator nor node proxies, and whether another one has can't be "+
				"asked: %s", p.system, plainly(err))
		}
		var found string
		err := meta.EachListItem(of.list, func(o runtime.Object) error {
			if m, err := meta.Accessor(o); err == nil && m.GetName() == of.name {
				found = cmp.Or(found, m.GetNamespace())
			}
			return nil
		})
		if err != nil {
			return err
		}
		if found != "" {
			return fmt.Errorf("nothing was deleted: namespace %s has neither the operator nor node proxies, and namespace %s "+
				"has %s: say --system-namespace %s", p.system, found, of.name, found)
		}
	}
	return nil
}

// labelPartOf marks what belongs to the mesh alone.
const labelPartOf = "app.kubernetes.io/part-of"

// mayDelete tells whether a namespace is the mesh's alone, as far as its label says.
func mayDelete(ctx context.Context, c client.Client, namespace string) bool {
	if namespace == metav1.NamespaceDefault || strings.HasPrefix(namespace, "kube-") {
		return false
	}
	n := &corev1.Namespace{}
	return c.Get(ctx, types.NamespacedName{Name: namespace}, n) == nil && n.Labels[labelPartOf] == "fairway"
}

func (p *removal) count(k *collector) {
	p.captured, p.automatic, p.gateways = -1, -1, -1
	if !k.unread[whatPods] {
		p.captured = 0
		for i := range k.pods {
			if member.Captured(&k.pods[i]) && !member.Finished(&k.pods[i]) {
				p.captured++
			}
		}
	}
	if !k.unread[whatGateways] {
		p.automatic, p.gateways = 0, 0
		for _, g := range k.gateways {
			switch {
			case g.Spec.GatewayClassName != names.WaypointClass:
			case g.Labels[names.LabelAutomatic] != "":
				p.automatic++
			default:
				p.gateways++
			}
		}
	}
	for _, n := range k.namespaceNames() {
		if k.enrolled(n) && k.namespaces[n].Labels[names.LabelMTLSMode] == names.MTLSStrict {
			p.strict = append(p.strict, n)
		}
	}
}

// Marks that those leave who install.
const (
	labelManagedBy    = "app.kubernetes.io/managed-by"
	annotationRelease = "meta.helm.sh/release-name"
	annotationIn      = "meta.helm.sh/release-namespace"
	kindCSV           = "ClusterServiceVersion"
)

// reconciled names what keeps an object as its source has it; "" if nothing is known to.
func reconciled(o metav1.Object) string {
	for key := range o.GetLabels() {
		if strings.HasPrefix(key, "kustomize.toolkit.fluxcd.io/") || strings.HasPrefix(key, "helm.toolkit.fluxcd.io/") {
			return "Flux"
		}
	}
	if o.GetAnnotations()["argocd.argoproj.io/tracking-id"] != "" || o.GetLabels()["argocd.argoproj.io/instance"] != "" {
		return "Argo CD"
	}
	return ""
}

// installerOf tells by the operator's Deployment, nil if it is gone, what has installed it. older: with the right of
// config/agents-before-1.36. alone: the namespace is the mesh's alone.
func installerOf(d *appsv1.Deployment, mesh *v1alpha1.Mesh, system string, older, alone bool) installer {
	by := installer{crds: []string{
		"kubectl delete customresourcedefinitions --selector=app.kubernetes.io/part-of=fairway",
	}}
	namespace := "kubectl delete namespace " + system
	if !alone {
		namespace = "kubectl get all,configmaps,secrets -n " + system +
			"    # what is left there; nothing says that the namespace is the mesh's alone"
	}
	if mesh != nil {
		by.restores = reconciled(mesh)
	}
	if d == nil {
		by.name = "nothing: there is no operator any more"
		by.crds = append(by.crds, namespace)
		return by
	}
	by.restores = cmp.Or(by.restores, reconciled(d))
	for _, o := range d.OwnerReferences {
		if o.Kind == kindCSV {
			by.name = "the Operator Lifecycle Manager (" + o.Name + ")"
			by.next = []string{
				"kubectl get subscriptions.operators.coreos.com -n " + system + "    # delete the one of fairway first",
				"kubectl delete clusterserviceversions.operators.coreos.com -n " + system + " " + o.Name,
			}
			if len(validation.IsDNS1123Subdomain(o.Name)) > 0 { // what is to be pasted must be a name
				by.next[1] = "kubectl get clusterserviceversions.operators.coreos.com -n " + system +
					"    # delete the one of fairway"
			}
			// It leaves what its bundle has as manifests.
			by.crds = append(by.crds, "kubectl delete clusterroles --selector=app.kubernetes.io/part-of=fairway", namespace)
			return by
		}
	}
	if release := d.Annotations[annotationRelease]; release != "" && d.Labels[labelManagedBy] == "Helm" {
		in := cmp.Or(d.Annotations[annotationIn], system)
		by.name = "Helm (release " + release + " in namespace " + in + ")"
		by.next = []string{"helm uninstall " + release + " --namespace " + in}
		if len(validation.IsDNS1123Subdomain(release)) > 0 || badNamespace(in) != nil { // what is to be pasted must be names
			by.next = []string{"helm list -A    # the operator's Deployment names no release; uninstall the one of fairway"}
		}
		by.crds = append(by.crds, namespace)
		return by
	}
	by.name = "kubectl (make deploy, or an apply of config/default or install.yaml)"
	if older {
		by.next = append(by.next, "kubectl delete -k config/agents-before-1.36")
	}
	by.next = append(by.next,
		"kubectl delete -k config/default    # in a checkout; of a release: kubectl delete -f install.yaml")
	by.crds = nil // they are part of that
	return by
}

// draw names what is deleted and what stays.
func (p *removal) draw(t *table) {
	if p.cluster != "" {
		t.line("Cluster: %s", p.cluster)
	}
	if p.mesh == nil && !p.daemonSet {
		t.line("There is no Mesh, and no node proxy: nothing is to be deleted here.")
		return
	}
	number := func(n int, one, more string) string {
		switch {
		case n < 0:
			return more + " (how many could not be asked)"
		case n == 1:
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", n, more)
	}
	t.line("To be deleted:")
	if p.mesh != nil {
		t.line("  - Mesh %s", p.mesh.Name)
	} else {
		t.line("  - no Mesh, for it is gone already")
	}
	t.line("and by the operator, once the Mesh is gone:")
	t.line("  - DaemonSet %s, with %s, last of all", daemonSetName(p.system),
		number(int(p.nodes), "node proxy", "node proxies"))
	t.line("  - %s, and the Deployments of all waypoints",
		number(p.automatic, "automatic waypoint", "automatic waypoints"))
	t.line("  - what the mesh said in statuses, and its admission policies")
	if p.captured != 0 {
		t.line("%s in plain text then, without a restart.",
			number(p.captured, "captured pod sends and receives", "captured pods send and receive"))
	}
	if len(p.strict) > 0 {
		t.line("Namespaces that refuse plain text (%s) take it then, too.", enumerate(p.strict))
	}
	t.line("\nStays: the operator, the CRDs, Gateways of your own (%s), routes, policies, labels of namespaces, Secrets.",
		number(p.gateways, "waypoint", "waypoints"))
	t.line("Installed by: %s.", p.by.name)
	if p.by.restores != "" {
		t.line("%s keeps it as its source says: remove it there, or it comes back.", p.by.restores)
	}
	if p.operators == 0 {
		t.line("No operator is ready, so nothing lets the pods go in order: see %s.", docsUninstall)
	}
}

// drawNext says how the rest is removed.
func (p *removal) drawNext(t *table) {
	if len(p.by.next)+len(p.by.crds) == 0 {
		return
	}
	if len(p.by.next) > 0 {
		t.line("\nNext, to remove the operator:")
	}
	for _, c := range p.by.next {
		t.line("  %s", c)
	}
	if len(p.by.crds) > 0 {
		t.line("\nTo remove the CRDs as well, with all policies, and what else is left:")
	}
	for _, c := range p.by.crds {
		t.line("  %s", c)
	}
}
