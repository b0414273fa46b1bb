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

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// errTaken says that an object of the wanted name belongs to somebody else. It is never overwritten.
var errTaken = errors.New("has another owner")

// applier applies objects on behalf of an owner. It skips what would change nothing: the same desired object, and a
// live object that is as it was after the last apply.
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

// application is an object that is ready to be applied.
type application struct {
	object *unstructured.Unstructured
	key    appliedKey
	hash   [sha256.Size]byte
	// current is the live object; nil if there is none.
	current client.Object
}

// apply makes the object as desired and the owner its controller. errTaken is returned if an object of that name has
// no or another controller, unless the owner succeeds that one.
func (a *applier) apply(ctx context.Context, owner, desired client.Object) error {
	p, err := a.prepare(ctx, owner, desired)
	if err != nil || a.unchanged(p) {
		return err
	}
	return a.send(ctx, p)
}

// held tells whether an object that pods are made from is there and stays as it is, since the Mesh is paused.
func (a *applier) held(ctx context.Context, mesh *v1alpha1.Mesh, desired client.Object) (bool, error) {
	if !mesh.Spec.Paused {
		return false, nil
	}
	current, err := a.current(ctx, desired)
	return current != nil, err
}

// applyScaled applies a Deployment whose number of replicas is an autoscaler's. A new one starts with the given number.
// One that had a fixed number keeps it: a field that its only manager stops applying would fall back to its default,
// one replica, so another manager takes it over first, until the autoscaler does.
func (a *applier) applyScaled(ctx context.Context, owner client.Object, desired *appsv1.Deployment, start int32) error {
	p, err := a.prepare(ctx, owner, desired)
	if err != nil || a.unchanged(p) {
		return err
	}
	if p.current == nil {
		first := desired.DeepCopy()
		first.Spec.Replicas = &start
		if err := a.apply(ctx, owner, first); err != nil {
			return err
		}
	}
	if err := a.handOverReplicas(ctx, client.ObjectKeyFromObject(desired)); err != nil {
		return err
	}
	return a.send(ctx, p)
}

// handOverReplicas makes another manager than the one that applies everything else the owner of a Deployment's number
// of replicas, if the latter is.
func (a *applier) handOverReplicas(ctx context.Context, key client.ObjectKey) error {
	d := &appsv1.Deployment{}
	// Past the cache, which holds no managed fields.
	if err := a.live.Get(ctx, key, d); err != nil {
		return fmt.Errorf("read Deployment %s: %w", key, err)
	}
	if d.Spec.Replicas == nil || !appliesReplicas(d) {
		return nil
	}
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"replicas": int64(*d.Spec.Replicas)}}}
	u.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	u.SetNamespace(key.Namespace)
	u.SetName(key.Name)
	// The autoscaler may be writing another number at this moment: a conflict is tried again.
	u.SetResourceVersion(d.ResourceVersion)
	err := a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u),
		client.FieldOwner(names.ManagedBy+"-replicas"), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("keep the replicas of Deployment %s: %w", key, err)
	}
	return nil
}

// appliesReplicas tells whether the operator applies the Deployment's number of replicas.
func appliesReplicas(d *appsv1.Deployment) bool {
	for _, m := range d.ManagedFields {
		if m.Manager != names.ManagedBy || m.Operation != metav1.ManagedFieldsOperationApply || m.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Spec map[string]json.RawMessage `json:"f:spec"`
		}
		if json.Unmarshal(m.FieldsV1.GetRawBytes(), &fields) == nil && fields.Spec["f:replicas"] != nil {
			return true
		}
	}
	return false
}

func (a *applier) prepare(ctx context.Context, owner, desired client.Object) (application, error) {
	if err := controllerutil.SetControllerReference(owner, desired, a.client.Scheme()); err != nil {
		return application{}, err
	}
	u, err := deploy.ForApply(desired)
	if err != nil {
		return application{}, err
	}
	raw, err := json.Marshal(u.Object)
	if err != nil {
		return application{}, err
	}
	p := application{object: u, hash: sha256.Sum256(raw)}
	p.key = appliedKey{u.GroupVersionKind().GroupKind(), client.ObjectKeyFromObject(desired)}
	if p.current, err = a.current(ctx, desired); err != nil {
		return application{}, err
	}
	if p.current != nil && !metav1.IsControlledBy(p.current, owner) && !inherits(owner, p.current) {
		return application{}, fmt.Errorf("%s %s %w: rename it, or %s", u.GetKind(), p.key.name, errTaken, owner.GetName())
	}
	return p, nil
}

func (a *applier) send(ctx context.Context, p application) error {
	err := a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(p.object),
		client.FieldOwner(names.ManagedBy), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", p.object.GetKind(), p.key.name, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen[p.key] = applied{p.hash, fingerprintOf(p.object)}
	return nil
}

// current is the live object, from the cache, or, for want of it there, from the API server; nil if there is none.
func (a *applier) current(ctx context.Context, desired client.Object) (client.Object, error) {
	out, ok := reflect.New(reflect.TypeOf(desired).Elem()).Interface().(client.Object)
	if !ok {
		return nil, fmt.Errorf("%T is not an object", desired)
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

func (a *applier) unchanged(p application) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	last, ok := a.seen[p.key]
	return ok && p.current != nil && last.desired == p.hash && last.result == fingerprintOf(p.current)
}

// forget drops what is remembered of objects.
func (a *applier) forget(objs ...client.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, obj := range objs {
		if gvk, err := a.client.GroupVersionKindFor(obj); err == nil {
			delete(a.seen, appliedKey{gvk.GroupKind(), client.ObjectKeyFromObject(obj)})
		}
	}
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

// inherits tells whether the owner may take over an object of its name: a Mesh what is left of the Mesh before it.
func inherits(owner, obj client.Object) bool {
	_, ok := owner.(*v1alpha1.Mesh)
	return ok && madeForMesh(obj)
}

// madeForMesh tells whether the operator made an object for a Mesh, perhaps one that is gone: then the object may have
// no controller any more.
func madeForMesh(obj client.Object) bool {
	ref := metav1.GetControllerOfNoCopy(obj)
	return obj.GetLabels()[names.LabelManagedBy] == names.ManagedBy && (ref == nil || ref.Kind == v1alpha1.KindMesh)
}

// remove deletes an object if the operator made it for the owner, and tells whether it is gone with all that it owns. A
// Gateway of another class has a controller of its own, which may give the Gateway objects of the same names.
func (a *applier) remove(ctx context.Context, owner, obj client.Object) (gone bool, err error) {
	ours := func(o client.Object) bool { return MadeFor(o, owner.GetUID()) }
	return a.removeIf(ctx, obj, metav1.DeletePropagationForeground, ours)
}

// removeIf deletes an object if it is ours, and tells whether it is gone, or never was ours. Only with foreground
// propagation has all that it owns gone before.
func (a *applier) removeIf(
	ctx context.Context, obj client.Object, how metav1.DeletionPropagation, ours func(client.Object) bool,
) (gone bool, err error) {
	a.forget(obj)
	key := client.ObjectKeyFromObject(obj)
	err = a.client.Get(ctx, key, obj)
	switch {
	case apierrors.IsNotFound(err):
		return true, nil
	case err != nil:
		return false, err
	case !ours(obj):
		return true, nil
	case obj.GetDeletionTimestamp() != nil:
		return false, nil
	}
	err = a.client.Delete(ctx, obj, client.Preconditions{UID: new(obj.GetUID())}, client.PropagationPolicy(how))
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return false, fmt.Errorf("delete %T %s: %w", obj, key, err)
	}
	return false, nil
}

// MadeFor tells whether the operator made an object for the owner.
func MadeFor(obj client.Object, owner types.UID) bool {
	ref := metav1.GetControllerOfNoCopy(obj)
	return ref != nil && ref.UID == owner && obj.GetLabels()[names.LabelManagedBy] == names.ManagedBy
}
