// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/redact"
)

const (
	// mostObjects bounds what is collected of a kind, and mostNamespaces from how many namespaces Events are.
	mostObjects    = 2000
	mostNamespaces = 50
	// A namespace has its share, so that none crowds out the others.
	mostObjectsOfNamespace = mostObjects / 2
	mostOfNamespace        = mostOfItem / 8
	// objectsOfPage bounds what is held of a kind at a time: an object may have 1.5 MiB.
	objectsOfPage = 50
)

// items are the objects of a list as they get into a report: each without what may be a secret before it is measured,
// and as many as fit.
type items struct {
	count, size int
	data        bytes.Buffer
	// of the namespaces, how many objects and bytes they have.
	counts, sizes map[string]int
	// left are the namespaces of which objects were left out; full: there was no room at all.
	left []string
	full bool
}

// add an object of a namespace, if it fits.
func (i *items) add(ctx context.Context, namespace string, object map[string]any) error {
	clean, err := redact.Value(ctx, object)
	if err != nil {
		return err
	}
	var data bytes.Buffer
	e := json.NewEncoder(&data)
	e.SetIndent("  ", " ")
	e.SetEscapeHTML(false)
	if err := e.Encode(clean); err != nil {
		return err
	}
	size := data.Len()
	switch {
	case i.count == mostObjects, i.size+size > mostOfItem:
		i.full = true
		return nil
	case namespace != "" && (i.counts[namespace] == mostObjectsOfNamespace || i.sizes[namespace]+size > mostOfNamespace):
		if !slices.Contains(i.left, namespace) {
			i.left = append(i.left, namespace)
		}
		return nil
	}
	if i.counts == nil {
		i.counts, i.sizes = map[string]int{}, map[string]int{}
	}
	i.count, i.size = i.count+1, i.size+size
	i.counts[namespace]++
	i.sizes[namespace] += size
	if i.count > 1 {
		i.data.WriteString("  ,")
	} else {
		i.data.WriteString("  ")
	}
	_, _ = data.WriteTo(&i.data) // a Buffer takes all
	return nil
}

// addItems adds a file of a list, and says what it lacks.
func (b *bugReport) addItems(file string, gvk schema.GroupVersionKind, i *items) {
	if i.full {
		b.lack(file, fmt.Sprintf("there are more than the first %d, or than %d MiB", mostObjects, mostOfItem>>20))
	}
	if len(i.left) > 0 {
		b.lack(file, fmt.Sprintf("some of namespaces with more than %d, or than %d MiB, were left out: %s",
			mostObjectsOfNamespace, mostOfNamespace>>20, enumerate(i.left)))
	}
	version, kind := gvk.ToAPIVersionAndKind()
	var out bytes.Buffer
	fmt.Fprintf(&out, "{\n \"apiVersion\": %q,\n \"kind\": %q,\n \"items\": [\n", version, kind+"List")
	_, _ = i.data.WriteTo(&out) // a Buffer takes all
	out.WriteString(" ]\n}\n")
	b.write(file, out.Bytes())
}

// addKind adds the objects of a kind, of a namespace or of all; nothing where the cluster doesn't have it. What was
// found by the time that something fails is added.
func (b *bugReport) addKind(ctx context.Context, file string, gvk schema.GroupVersionKind, namespace string) {
	ctx, cancel := context.WithTimeout(ctx, itemTime)
	defer cancel()
	var found items
	for token := ""; ; {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		err := b.client.List(ctx, list, client.InNamespace(namespace), client.Limit(objectsOfPage), client.Continue(token))
		if found.count == 0 && (meta.IsNoMatchError(err) || apierrors.IsNotFound(err)) {
			return
		}
		for n := 0; err == nil && n < len(list.Items); n++ {
			err = found.add(ctx, list.Items[n].GetNamespace(), list.Items[n].Object)
			list.Items[n].Object = nil
		}
		if err != nil {
			b.lack(file, plainly(err))
			if found.count > 0 {
				b.lack(file, fmt.Sprintf("there may be more than the %d that it has", found.count))
				b.addItems(file, gvk, &found)
			}
			return
		}
		if token = list.GetContinue(); token == "" || found.full {
			b.addItems(file, gvk, &found)
			return
		}
	}
}
