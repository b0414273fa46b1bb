// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ForApply turns a typed object into what is sent for server-side apply: the fields that it sets, and no other. A typed
// object also serialises some of its zero values (status, empty resources); applying those would take their ownership
// from whoever else manages them. The object must carry its apiVersion and kind.
func ForApply(obj client.Object) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, fmt.Errorf("convert %T: %w", obj, err)
	}
	u := &unstructured.Unstructured{Object: content}
	if u.GetKind() == "" || u.GetAPIVersion() == "" {
		return nil, fmt.Errorf("%T %s has no kind", obj, obj.GetName())
	}
	delete(content, "status")
	pruneEmpty(content, "metadata", "creationTimestamp")
	pruneEmpty(content, "spec", "template", "metadata", "creationTimestamp")
	for _, kind := range []string{"initContainers", "containers"} {
		containers, _, _ := unstructured.NestedFieldNoCopy(content, "spec", "template", "spec", kind)
		list, _ := containers.([]any)
		for _, c := range list {
			if container, ok := c.(map[string]any); ok {
				pruneEmpty(container, "resources")
			}
		}
	}
	return u, nil
}

// pruneEmpty removes a field that is null or an empty object.
func pruneEmpty(content map[string]any, fields ...string) {
	v, found, err := unstructured.NestedFieldNoCopy(content, fields...)
	if err != nil || !found {
		return
	}
	if m, ok := v.(map[string]any); v == nil || (ok && len(m) == 0) {
		unstructured.RemoveNestedField(content, fields...)
	}
}
