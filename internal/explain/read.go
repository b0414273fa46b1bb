// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/cluster"
)

// Read lists all that the mesh reads. Kinds that the cluster doesn't have are empty; what can't be read is an error,
// for what is missing might decide.
func Read(ctx context.Context, c client.Client) (*Mesh, error) {
	var all []client.Object
	for _, k := range Kinds() {
		gvk, err := c.GroupVersionKindFor(k.Empty)
		if err != nil {
			return nil, err
		}
		items, err := list(ctx, c, gvk)
		if err != nil {
			return nil, fmt.Errorf("%s objects can't be listed, and they may decide: %w", gvk.Kind, err)
		}
		all = append(all, items...)
	}
	referred, err := Referred(ctx, c, all)
	if err != nil {
		return nil, err
	}
	return newMesh(append(all, referred...)), nil
}

// Kind of objects that the operator decides by.
type Kind struct {
	Name string
	// Empty is an object of the kind, for who lists them.
	Empty client.Object
}

// Kinds are all but those of which only what others refer to is read; see Referred.
func Kinds() (out []Kind) {
	for _, k := range cluster.Kinds() {
		if !k.Referenced() {
			out = append(out, Kind{cluster.NameOf(k.New()), k.New()})
		}
	}
	return out
}

// Referred objects are ConfigMaps, as few as proxies are given: what needs one that isn't there can't be carried out.
func Referred(ctx context.Context, c client.Client, all []client.Object) (out []client.Object, err error) {
	in := map[string]map[cluster.Reference]bool{}
	for _, o := range all {
		for _, ref := range cluster.References(o) {
			if in[o.GetNamespace()] == nil {
				in[o.GetNamespace()] = map[cluster.Reference]bool{}
			}
			in[o.GetNamespace()][ref] = true
		}
	}
	for namespace, refs := range in {
		for _, ref := range cluster.Readable(refs) {
			found := &corev1.ConfigMap{}
			err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, found)
			switch {
			case apierrors.IsNotFound(err):
			case err != nil:
				return nil, fmt.Errorf("ConfigMap %s/%s can't be read, and it may decide: %w", namespace, ref.Name, err)
			default:
				out = append(out, cluster.TrimConfigMap(found, true))
			}
		}
	}
	return out, nil
}

func list(ctx context.Context, c client.Client, gvk schema.GroupVersionKind) (out []client.Object, err error) {
	gvk.Kind += "List"
	empty, err := c.Scheme().New(gvk)
	if err != nil {
		return nil, err
	}
	into, ok := empty.(client.ObjectList)
	if !ok {
		return nil, fmt.Errorf("%s is no list", gvk)
	}
	if err := c.List(ctx, into); meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	items, err := meta.ExtractList(into)
	for _, item := range items {
		if o, ok := item.(client.Object); ok {
			out = append(out, o)
		}
	}
	return out, err
}
