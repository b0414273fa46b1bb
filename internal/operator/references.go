// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/fairway-mesh/fairway/internal/cluster"
)

// referencePatience is how long an object is held back for what it refers to. Then it goes without: what it guards is
// refused until the rest is read.
const referencePatience = 10 * time.Second

// sink is what the engine takes in.
type sink interface {
	Set(obj client.Object)
	Delete(obj client.Object)
}

// references hand objects on to the engine, each after the ConfigMaps that it refers to: the engine takes one that it
// doesn't know for one that doesn't exist. ConfigMaps are watched one by one, and only as long as some object refers to
// them (cluster.References).
type references struct {
	// ctx ends all watches.
	ctx context.Context
	to  sink
	// watch follows a ConfigMap until the context ends, and tells when it knows it, or that there is none.
	watch    func(ctx context.Context, key client.ObjectKey, module bool, to sink, known func())
	patience time.Duration

	mu sync.Mutex
	// by namespace and object, the ConfigMaps.
	by      map[string]map[referrer][]cluster.Reference
	watched map[client.ObjectKey]*reference
	held    map[referrer]client.Object
	idle    *sync.Cond // nothing is held
}

// referrer is an object that refers to ConfigMaps.
type referrer struct {
	kind string
	key  client.ObjectKey
}

type reference struct {
	stop  context.CancelFunc
	known bool
	// module: what is read of the ConfigMap is also a module.
	module bool
}

func newReferences(ctx context.Context, configMaps toolscache.Getter, to sink) *references {
	r := &references{
		ctx: ctx, to: to, patience: referencePatience, by: map[string]map[referrer][]cluster.Reference{},
		watched: map[client.ObjectKey]*reference{}, held: map[referrer]client.Object{},
		watch: func(ctx context.Context, key client.ObjectKey, module bool, to sink, known func()) {
			watchConfigMap(ctx, configMaps, key, module, to, known)
		},
	}
	r.idle = sync.NewCond(&r.mu)
	return r
}

// configMapsOf reads ConfigMaps past the manager's cache, which has those of the mesh only.
func configMapsOf(mgr ctrl.Manager) (toolscache.Getter, error) {
	getter, err := apiutil.RESTClientForGVK(corev1.SchemeGroupVersion.WithKind("ConfigMap"), false, false, mgr.GetConfig(),
		serializer.NewCodecFactory(mgr.GetScheme()), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("a client for ConfigMaps: %w", err)
	}
	return getter, nil
}

func referrerOf(obj client.Object) referrer {
	return referrer{cluster.NameOf(obj), client.ObjectKeyFromObject(obj)}
}

// set hands an object on, once what it refers to is known.
func (r *references) set(obj client.Object) {
	refs, id := cluster.References(obj), referrerOf(obj)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(refs) == 0 && r.by[id.key.Namespace][id] == nil {
		r.to.Set(obj) // as nearly all
		return
	}
	r.refer(id, refs)
	r.held[id] = obj
	r.release(id.key.Namespace)
	if r.held[id] != nil {
		time.AfterFunc(r.patience, func() { r.give(id, obj) })
	}
}

// remove takes an object away.
func (r *references) remove(obj client.Object) {
	id := referrerOf(obj)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, id)
	r.to.Delete(obj)
	if r.by[id.key.Namespace][id] != nil {
		r.refer(id, nil)
	}
	r.idle.Broadcast()
}

// settle waits until nothing is held back.
func (r *references) settle(ctx context.Context) {
	defer context.AfterFunc(ctx, r.idle.Broadcast)()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.held) > 0 && ctx.Err() == nil {
		r.idle.Wait()
	}
}

// refer says which ConfigMaps an object refers to, and watches those that any of its namespace does.
func (r *references) refer(id referrer, refs []cluster.Reference) {
	ns := id.key.Namespace
	if r.by[ns] == nil {
		r.by[ns] = map[referrer][]cluster.Reference{}
	}
	if r.by[ns][id] = refs; len(refs) == 0 {
		delete(r.by[ns], id)
	}
	all := map[cluster.Reference]bool{}
	for _, refs := range r.by[ns] {
		for _, ref := range refs {
			all[ref] = true
		}
	}
	if len(all) == 0 {
		delete(r.by, ns)
	}
	wanted := map[string]bool{} // whether for a module
	for _, ref := range cluster.Readable(all) {
		wanted[ref.Name] = wanted[ref.Name] || ref.Module
	}
	for key, w := range r.watched {
		if key.Namespace != ns {
			continue
		}
		module, still := wanted[key.Name]
		if still && module == w.module {
			delete(wanted, key.Name)
			continue
		}
		w.stop()
		delete(r.watched, key)
		if !still {
			gone := &corev1.ConfigMap{}
			gone.Namespace, gone.Name = key.Namespace, key.Name
			r.to.Delete(gone)
		}
	}
	for name, module := range wanted {
		r.begin(client.ObjectKey{Namespace: ns, Name: name}, module)
	}
}

// begin watches a ConfigMap. What a watch says that was ended is of no interest any more.
func (r *references) begin(key client.ObjectKey, module bool) {
	ctx, stop := context.WithCancel(r.ctx)
	w := &reference{stop: stop, module: module}
	r.watched[key] = w
	go r.watch(ctx, key, module, &following{r, key, w}, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		w.known = true
		r.release(key.Namespace)
	})
}

// following hands on what the current watch of a ConfigMap says.
type following struct {
	r   *references
	key client.ObjectKey
	w   *reference
}

func (f *following) Set(obj client.Object)    { f.say(func() { f.r.to.Set(obj) }) }
func (f *following) Delete(obj client.Object) { f.say(func() { f.r.to.Delete(obj) }) }

func (f *following) say(what func()) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if f.r.watched[f.key] == f.w {
		what()
	}
}

// release hands on the objects of a namespace that wait for nothing any more.
func (r *references) release(namespace string) {
	for id, obj := range r.held {
		if id.key.Namespace == namespace && r.complete(namespace, r.by[namespace][id]) {
			delete(r.held, id)
			r.to.Set(obj)
		}
	}
	r.idle.Broadcast()
}

// complete tells whether all that may be read of these is known.
func (r *references) complete(namespace string, refs []cluster.Reference) bool {
	for _, ref := range refs {
		if w := r.watched[client.ObjectKey{Namespace: namespace, Name: ref.Name}]; w != nil && !w.known {
			return false
		}
	}
	return true
}

// give hands on an object that waited for long enough, unless there is a later version.
func (r *references) give(id referrer, obj client.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[id] == obj {
		delete(r.held, id)
		r.to.Set(obj)
		r.idle.Broadcast()
	}
}

// watchConfigMap follows one ConfigMap.
func watchConfigMap(
	ctx context.Context, from toolscache.Getter, key client.ObjectKey, module bool, to sink, known func(),
) {
	hand := func(o any, on func(client.Object)) {
		if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		if cm, ok := o.(*corev1.ConfigMap); ok {
			on(cm)
		}
	}
	_, informer := toolscache.NewInformerWithOptions(toolscache.InformerOptions{
		ListerWatcher: toolscache.NewListWatchFromClient(from, "configmaps", key.Namespace,
			fields.OneTermEqualSelector("metadata.name", key.Name)),
		ObjectType: &corev1.ConfigMap{},
		Handler: toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { hand(o, to.Set) },
			UpdateFunc: func(_, o any) { hand(o, to.Set) },
			DeleteFunc: func(o any) { hand(o, to.Delete) },
		},
		Transform: func(o any) (any, error) {
			if cm, ok := o.(*corev1.ConfigMap); ok {
				return cluster.TrimConfigMap(cm, module), nil
			}
			return o, nil
		},
	})
	go func() {
		if toolscache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			known()
		}
	}()
	informer.RunWithContext(ctx)
}
