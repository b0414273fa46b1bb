// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/engine"
	"github.com/fairway-mesh/fairway/internal/ingest"
)

// feed hands every watched object to the engine and computes nothing. It runs on every replica. Kinds that the cluster
// does not have yet are picked up when their CustomResourceDefinition appears.
type feed struct {
	cache  cache.Cache
	inbox  *engine.Inbox
	kinds  *controllers.Kinds
	scheme *runtime.Scheme
	log    logr.Logger
	ready  *readiness
	// taken is told once the engine has taken in all that existed at the start.
	taken func()
	// touched is told of every object that was added (before is nil) or changed, after the engine.
	touched func(before, now client.Object)
	// references read what objects refer to, and hand the objects on.
	references *references
	// pod is told of every pod besides: before is nil for one that is new, now for one that is gone.
	pod func(before, now *corev1.Pod)
}

// NeedLeaderElection makes the manager run the feed on every replica.
func (f *feed) NeedLeaderElection() bool { return false }

// Start registers with the informers and tells the engine when all of them have handed over what existed.
func (f *feed) Start(ctx context.Context) error {
	var synced sync.WaitGroup
	read := func(gvk schema.GroupVersionKind, has toolscache.InformerSynced) {
		done := f.ready.await("watch of " + gvk.Kind + " (" + gvk.GroupVersion().String() + ")")
		synced.Go(func() {
			if toolscache.WaitForCacheSync(ctx.Done(), has) {
				done()
			}
		})
	}
	for _, kind := range cluster.Kinds() {
		if kind.Referenced() {
			continue // by references
		}
		obj := kind.New()
		gvk, err := apiutil.GVKForObject(obj, f.scheme)
		if err != nil {
			return err
		}
		now := make(chan toolscache.InformerSynced, 1) // filled at once, or where the kind is yet to come, some day
		watch := func() error {
			s, err := f.watch(ctx, obj)
			if err == nil {
				now <- s
			}
			return err
		}
		if kind.Optional() {
			err = f.kinds.When(watch, gvk)
		} else {
			err = watch()
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", gvk, err)
		}
		select {
		case s := <-now:
			read(gvk, s)
		default:
			f.log.Info("the cluster does not have this kind yet; it is picked up when it appears", "kind", gvk.String())
		}
	}
	synced.Wait()
	f.references.settle(ctx)
	select {
	case <-ctx.Done():
		return nil
	default:
	}
	f.inbox.Synced()
	// It runs once the engine has taken in what was queued before, or never, if the operator ends.
	_ = f.inbox.Inspect(ctx, func(*ingest.Ingest) { f.taken() })
	<-ctx.Done()
	return nil
}

func (f *feed) watch(ctx context.Context, obj client.Object) (toolscache.InformerSynced, error) {
	informer, err := f.cache.GetInformer(ctx, obj, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, err
	}
	reg, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { f.set(nil, o) }, //nolint:contextcheck // references end with the operator
		UpdateFunc: f.update,
		DeleteFunc: func(o any) { //nolint:contextcheck // likewise
			if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			f.remove(o)
		},
	})
	if err != nil {
		return nil, err
	}
	return reg.HasSynced, nil
}

// update tells of a deletion that the informer missed: after a broken watch, another object of the name may be there.
func (f *feed) update(before, now any) {
	old, ok := before.(client.Object)
	if obj, also := now.(client.Object); ok && also && old.GetUID() != obj.GetUID() {
		f.remove(old)
		old = nil
	}
	f.set(old, now)
}

// set hands on an object, and what it was before, nil if there was none.
func (f *feed) set(before client.Object, o any) {
	obj, ok := o.(client.Object)
	if !ok {
		return
	}
	f.references.set(obj)
	f.touched(before, obj)
	if p, ok := obj.(*corev1.Pod); ok {
		was, _ := before.(*corev1.Pod)
		f.pod(was, p)
	}
}

func (f *feed) remove(o any) {
	obj, ok := o.(client.Object)
	if !ok {
		return
	}
	if mesh, ok := obj.(*v1alpha1.Mesh); ok {
		// Pods are captured for a while longer, under the trust domain that the Mesh had.
		mesh = mesh.DeepCopy()
		mesh.DeletionTimestamp = new(metav1.Now())
		mesh.Generation++ // as the API server does for a deletion that waits
		f.inbox.Set(mesh)
		return
	}
	f.references.remove(obj)
	if p, ok := obj.(*corev1.Pod); ok {
		f.pod(p, nil)
	}
}
