// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// errTaken says that an object of the wanted name belongs to somebody else. It is never overwritten.
var errTaken = errors.New("belongs to somebody else")

// applier applies objects on behalf of an owner. It skips what would change nothing: the same desired object, and a live
// object that is as it was after the last apply.
type applier struct {
	client client.Client
	// live reads past the cache, which holds managed objects only.
	live client.Reader

	mu   sync.Mutex
	seen map[appliedKey]applied
}

type appliedKey struct {
	kind schema.GroupKind
	name types.NamespacedName
}

// applied remembers one apply: what was asked for, and what the object was like afterwards.
type applied struct {
	desired [sha256.Size]byte
	result  fingerprint
}

// fingerprint changes when anything changes that an apply could have to repair. Objects with a generation count it up
// with their spec, so that their statuses, which change often, don't matter.
type fingerprint struct {
	uid        types.UID
	generation int64
	version    string
	meta       [sha256.Size]byte
}

func newApplier(c client.Client, live client.Reader) *applier {
	return &applier{client: c, live: live, seen: map[appliedKey]applied{}}
}

// apply makes the object as desired and the owner its controller. errTaken is returned if an object of that name has
// no or another controller.
func (a *applier) apply(ctx context.Context, owner, desired client.Object) error {
	if err := controllerutil.SetControllerReference(owner, desired, a.client.Scheme()); err != nil {
		return err
	}
	u, err := deploy.ForApply(desired)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(u.Object)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(raw)
	key := appliedKey{u.GroupVersionKind().GroupKind(), client.ObjectKeyFromObject(desired)}

	current, err := a.current(ctx, desired)
	switch {
	case err != nil:
		return err
	case current != nil && !metav1.IsControlledBy(current, owner):
		return fmt.Errorf("%s %s %w: rename it, or %s", u.GetKind(), key.name, errTaken, owner.GetName())
	case current != nil && a.unchanged(key, hash, current):
		return nil
	}
	err = a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(names.ManagedBy), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", u.GetKind(), key.name, err)
	}
	a.remember(key, hash, u)
	return nil
}

// current is the live object, from the cache, or, for want of it there, from the API server; nil if there is none.
func (a *applier) current(ctx context.Context, desired client.Object) (client.Object, error) {
	out, ok := reflect.New(reflect.TypeOf(desired).Elem()).Interface().(client.Object)
	if !ok {
		return nil, fmt.Errorf("%T is no object", desired)
	}
	key := client.ObjectKeyFromObject(desired)
	err := a.client.Get(ctx, key, out)
	if apierrors.IsNotFound(err) {
		err = a.live.Get(ctx, key, out)
	}
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // "none" is an answer here, not an error
	}
	return out, err
}

func (a *applier) unchanged(key appliedKey, desired [sha256.Size]byte, current client.Object) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	last, ok := a.seen[key]
	return ok && last.desired == desired && last.result == fingerprintOf(current)
}

func (a *applier) remember(key appliedKey, desired [sha256.Size]byte, result *unstructured.Unstructured) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen[key] = applied{desired, fingerprintOf(result)}
}

func (a *applier) forget(kind schema.GroupKind, name types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.seen, appliedKey{kind, name})
}

func fingerprintOf(o client.Object) fingerprint {
	f := fingerprint{uid: o.GetUID(), generation: o.GetGeneration()}
	if f.generation == 0 {
		f.version = o.GetResourceVersion()
	}
	// Maps are marshalled in the order of their keys.
	raw, err := json.Marshal([]any{o.GetLabels(), o.GetAnnotations(), o.GetOwnerReferences()})
	if err == nil {
		f.meta = sha256.Sum256(raw)
	}
	return f
}

// remove deletes an object if the operator made it for the owner, and tells whether it is gone. A Gateway of another
// class has a controller of its own, which may give the Gateway objects of the same names.
func (a *applier) remove(ctx context.Context, owner, obj client.Object) (gone bool, err error) {
	gvk, err := a.client.GroupVersionKindFor(obj)
	if err != nil {
		return false, err
	}
	key := client.ObjectKeyFromObject(obj)
	a.forget(gvk.GroupKind(), key)
	err = a.client.Get(ctx, key, obj)
	switch {
	case apierrors.IsNotFound(err):
		return true, nil
	case err != nil:
		return false, err
	case !madeFor(obj, owner.GetUID()):
		return true, nil
	case obj.GetDeletionTimestamp() != nil:
		return false, nil
	}
	err = a.client.Delete(ctx, obj, client.Preconditions{UID: new(obj.GetUID())}, client.PropagationPolicy(metav1.DeletePropagationForeground))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return false, nil
	}
	return false, err
}

// madeFor tells whether the operator made an object for the owner.
func madeFor(obj client.Object, owner types.UID) bool {
	ref := metav1.GetControllerOfNoCopy(obj)
	return ref != nil && ref.UID == owner && obj.GetLabels()[names.LabelManagedBy] == names.ManagedBy
}
