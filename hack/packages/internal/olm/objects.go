// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package olm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

const (
	csvKind   = "ClusterServiceVersion"
	rbacGroup = "rbac.authorization.k8s.io"

	// ownerLabel names the ClusterServiceVersion that an object is of, and these its namespace and kind.
	ownerLabel          = "olm.owner"
	ownerNamespaceLabel = "olm.owner.namespace"
	ownerKindLabel      = "olm.owner.kind"
	managedLabel        = "olm.managed"
)

// namespaced says of each kind that a bundle may have beside its ClusterServiceVersion whether it is in a namespace.
// The lifecycle manager refuses a bundle with any other kind. It knows NetworkPolicy, too, but has not for long.
var namespaced = map[string]bool{
	"CustomResourceDefinition": false, "ClusterRole": false, "ClusterRoleBinding": false, "PriorityClass": false,
	"Service": true, "ServiceAccount": true, "Role": true, "RoleBinding": true, "Secret": true, "ConfigMap": true,
	"PodDisruptionBudget": true, "ServiceMonitor": true, "PrometheusRule": true,
}

// Objects are what the lifecycle manager makes of the bundle in a namespace whose OperatorGroup is for all
// namespaces, in an order in which they can be applied. Owner references are left out, since their owner isn't there.
//
// As the lifecycle manager does, it makes a ClusterRole, too, of each Role that the ClusterServiceVersion asks for: an
// operator for all namespaces has all its permissions in all of them.
func (b *Bundle) Objects(namespace string) ([]source.Object, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	i := installation{Bundle: b, namespace: namespace}
	permissions, err := i.permissions()
	if err != nil {
		return nil, err
	}
	deployments, err := i.deployments()
	if err != nil {
		return nil, err
	}
	return slices.Concat(i.manifests(), permissions, deployments), nil
}

// installation is a bundle in a namespace.
type installation struct {
	*Bundle

	namespace string
}

// check refuses what the lifecycle manager would, or what isn't made here.
func (b *Bundle) check() error {
	if s := b.CSV.Str("spec", "install", "strategy"); s != "deployment" {
		return fmt.Errorf("the install strategy is %q", s)
	}
	for _, field := range []string{"webhookdefinitions", "apiservicedefinitions"} {
		if b.CSV.At("spec", field) != nil {
			return fmt.Errorf("%s are not supported here", field)
		}
	}
	supported := false
	for _, m := range list(b.CSV.At("spec", "installModes")) {
		supported = supported || (m.Str("type") == "AllNamespaces" && m["supported"] == true)
	}
	if !supported {
		return errors.New("the bundle can't be installed for all namespaces")
	}
	for _, o := range b.Manifests {
		if _, known := namespaced[o.Kind()]; !known {
			return fmt.Errorf("a bundle may not have a %s (%s)", o.Kind(), o.Name())
		}
	}
	return nil
}

// Namespace is what the ClusterServiceVersion suggests, as the web console makes it; nil where it suggests none.
func (b *Bundle) Namespace() (source.Object, error) {
	template := b.CSV.Str("metadata", "annotations", "operatorframework.io/suggested-namespace-template")
	if template == "" {
		return nil, nil
	}
	o := source.Object{}
	if err := json.Unmarshal([]byte(template), &o); err != nil {
		return nil, fmt.Errorf("the template of the namespace: %w", err)
	}
	return o, nil
}

// manifests are the objects that the bundle has as such, CRDs first.
func (i installation) manifests() []source.Object {
	var crds, others []source.Object
	for _, m := range i.Manifests {
		o := m.DeepCopy()
		label(o, map[string]any{managedLabel: "true"})
		if namespaced[o.Kind()] {
			set(o, i.namespace, "metadata", "namespace")
		}
		if o.Kind() == "CustomResourceDefinition" {
			crds = append(crds, o)
		} else {
			others = append(others, o)
		}
	}
	return append(crds, others...)
}

// permissions are service accounts with what they may do.
func (i installation) permissions() ([]source.Object, error) {
	var out []source.Object
	accounts := map[string]bool{}
	for _, field := range []string{"permissions", "clusterPermissions"} {
		for _, p := range list(i.CSV.At("spec", "install", "spec", field)) {
			account := p.Str("serviceAccountName")
			if account == "" {
				return nil, fmt.Errorf("%s without serviceAccountName", field)
			}
			if !accounts[account] && account != "default" {
				out = append(out, i.owned("v1", "ServiceAccount", account, i.namespace, nil))
			}
			accounts[account] = true
			name, err := i.hashed(i.CSV.Name()+"-"+account, p)
			if err != nil {
				return nil, err
			}
			granted, _ := p["rules"].([]any)
			if field == "permissions" {
				out = append(out, i.bound("Role", "RoleBinding", name, i.namespace, account, granted)...)
				granted = append(slices.Clone(granted), map[string]any{
					"apiGroups": []any{""}, "resources": []any{"namespaces"}, "verbs": []any{"get", "list", "watch"},
				})
			}
			out = append(out, i.bound("ClusterRole", "ClusterRoleBinding", name, "", account, granted)...)
		}
	}
	return out, nil
}

// bound is a role, in a namespace if it has one, and what binds it to a service account.
func (i installation) bound(role, binding, name, namespace, account string, rules []any) []source.Object {
	const version = rbacGroup + "/v1"
	return []source.Object{
		i.owned(version, role, name, namespace, map[string]any{"rules": rules}),
		i.owned(version, binding, name, namespace, map[string]any{
			"roleRef":  map[string]any{"apiGroup": rbacGroup, "kind": role, "name": name},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": account, "namespace": i.namespace}},
		}),
	}
}

func (i installation) deployments() ([]source.Object, error) {
	var out []source.Object
	for _, d := range list(i.CSV.At("spec", "install", "spec", "deployments")) {
		spec, ok := d.DeepCopy()["spec"].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("the Deployment %s has no spec", d.Str("name"))
		}
		o := i.owned("apps/v1", "Deployment", d.Str("name"), i.namespace, map[string]any{"spec": spec})
		labels, _ := d.At("label").(map[string]any)
		label(o, labels)
		set(o, any(int64(1)), "spec", "revisionHistoryLimit")

		annotations := map[string]any{}
		template, _ := o.At("spec", "template", "metadata", "annotations").(map[string]any)
		maps.Copy(annotations, template)
		// All annotations of the ClusterServiceVersion, long ones as well, and what the OperatorGroup adds to them.
		own, _ := i.CSV.At("metadata", "annotations").(map[string]any)
		maps.Copy(annotations, own)
		maps.Copy(annotations, map[string]any{
			"olm.operatorGroup": "global", "olm.operatorNamespace": i.namespace, "olm.targetNamespaces": "",
		})
		set(o, annotations, "spec", "template", "metadata", "annotations")
		for _, c := range source.Containers(o) {
			env, _ := c["env"].([]any)
			c["env"] = append(env, map[string]any{"name": "OPERATOR_CONDITION_NAME", "value": i.CSV.Name()})
		}
		hash, err := hash(o["spec"])
		if err != nil {
			return nil, err
		}
		label(o, map[string]any{"olm.deployment-spec-hash": hash})
		out = append(out, o)
	}
	return out, nil
}

// owned is an object that goes with the ClusterServiceVersion.
func (i installation) owned(version, kind, name, namespace string, content map[string]any) source.Object {
	o := source.Object{"apiVersion": version, "kind": kind, "metadata": map[string]any{"name": name}}
	if namespace != "" {
		set(o, namespace, "metadata", "namespace")
	}
	maps.Copy(o, content)
	label(o, map[string]any{
		managedLabel: "true", ownerLabel: i.CSV.Name(), ownerNamespaceLabel: i.namespace, ownerKindLabel: csvKind,
	})
	return o
}

// hashed is a name of at most 63 characters for what is given, which another ClusterServiceVersion doesn't have.
func (i installation) hashed(base string, what any) (string, error) {
	sum, err := hash([]any{i.CSV.Name(), what})
	if err != nil {
		return "", err
	}
	if n := 63 - len(sum) - 1; len(base) > n {
		base = base[:n]
	}
	return base + "-" + sum, nil
}

func hash(what any) (string, error) {
	b, err := json.Marshal(what)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:10]), nil
}

func label(o source.Object, labels map[string]any) {
	all := map[string]any{}
	have, _ := o.At("metadata", "labels").(map[string]any)
	maps.Copy(all, have)
	maps.Copy(all, labels)
	set(o, all, "metadata", "labels")
}

// set puts a value at a path, making what leads there.
func set(o source.Object, value any, path ...string) {
	m := map[string]any(o)
	for _, p := range path[:len(path)-1] {
		next, ok := m[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[p] = next
		}
		m = next
	}
	m[path[len(path)-1]] = value
}

func list(v any) []source.Object {
	items, _ := v.([]any)
	out := make([]source.Object, 0, len(items))
	for _, i := range items {
		if m, ok := i.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
