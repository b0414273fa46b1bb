// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/cluster"
)

// Read lists all that the mesh reads. Kinds that the cluster doesn't have are empty; one that can't be listed is an
// error, for what is missing might decide.
func Read(ctx context.Context, c client.Client) (*Mesh, error) {
	var all []client.Object
	for _, k := range cluster.Kinds() {
		if k.Referenced() {
			continue // decides on no caller
		}
		gvk, err := c.GroupVersionKindFor(k.New())
		if err != nil {
			return nil, err
		}
		items, err := list(ctx, c, gvk)
		if err != nil {
			return nil, fmt.Errorf("%s objects can't be listed, and they may decide: %w", gvk.Kind, err)
		}
		all = append(all, items...)
	}
	return newMesh(all), nil
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
