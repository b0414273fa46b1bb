// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// After a CRD changed, its kind may be served a little later: it is looked for so often, so far apart.
const (
	discoveryTries = 10
	discoveryPause = 300 * time.Millisecond
)

// Kinds starts what needs a kind as soon as the API server serves it: at once, or when its CRD appears. Nothing is
// stopped when a CRD goes away; its informers fail until it comes back.
type Kinds struct {
	discovery discovery.DiscoveryInterface

	mu      sync.Mutex
	waiting []waiter
	tries   int

	known knownKinds
}

// knownKinds remembers which kinds are served, so that who asks often doesn't cost the API server a request each time.
// A change of any CRD ends that, and until the API server has caught up with it, nothing is remembered.
type knownKinds struct {
	mu     sync.Mutex
	served map[schema.GroupVersionKind]bool
	from   time.Time
}

func (k *knownKinds) has(gvk schema.GroupVersionKind) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.served[gvk]
}

// add remembers what was true when the API server was asked.
func (k *knownKinds) add(gvk schema.GroupVersionKind, asked time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if asked.Before(k.from) {
		return
	}
	if k.served == nil {
		k.served = map[schema.GroupVersionKind]bool{}
	}
	k.served[gvk] = true
}

func (k *knownKinds) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.served, k.from = nil, time.Now().Add(discoveryTries*discoveryPause)
}

type waiter struct {
	kinds []schema.GroupVersionKind
	start func() error
}

// NewKinds adds the watch of CRDs (their metadata only) to the manager. It runs on every replica.
func NewKinds(mgr ctrl.Manager) (*Kinds, error) {
	d, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("make a discovery client: %w", err)
	}
	k := &Kinds{discovery: d}
	return k, ctrl.NewControllerManagedBy(mgr).
		Named("kinds").
		WatchesMetadata(crdMetadata(), handler.EnqueueRequestsFromMapFunc(k.lookAgain)).
		WithOptions(controller.Options{NeedLeaderElection: new(false)}).
		Complete(k)
}

// crdMetadata is the object to watch CRDs with: their schemas are large, and nobody needs them.
func crdMetadata() *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	return o
}

// When runs start once all kinds are served: before it returns if they are now.
func (k *Kinds) When(start func() error, kinds ...schema.GroupVersionKind) error {
	served, err := k.served(kinds...)
	if err != nil {
		return err
	}
	if served {
		return start()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waiting = append(k.waiting, waiter{kinds, start})
	return nil
}

// served tells whether the API server serves all of the kinds.
func (k *Kinds) served(kinds ...schema.GroupVersionKind) (bool, error) {
	for _, gvk := range kinds {
		if k.known.has(gvk) {
			continue
		}
		asked := time.Now()
		list, err := k.discovery.ServerResourcesForGroupVersion(gvk.GroupVersion().String())
		if ignoreMissing(err) != nil {
			return false, fmt.Errorf("look for %s: %w", gvk, err)
		}
		if err != nil || !hasKind(list, gvk.Kind) {
			return false, nil //nolint:nilerr // the error says that the group is not served, which is the answer
		}
		k.known.add(gvk, asked)
	}
	return true, nil
}

func hasKind(list *metav1.APIResourceList, kind string) bool {
	for i := range list.APIResources {
		if list.APIResources[i].Kind == kind {
			return true
		}
	}
	return false
}

// lookAgain has kinds looked for anew, for a CRD changed. It maps every CRD to one request, so that a hundred of them
// are looked at once.
func (k *Kinds) lookAgain(context.Context, client.Object) []reconcile.Request {
	k.known.forget()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tries = discoveryTries
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: "crds"}}}
}

// Reconcile starts what waits for kinds that are served by now.
func (k *Kinds) Reconcile(context.Context, reconcile.Request) (reconcile.Result, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var rest []waiter
	var errs []error
	for _, w := range k.waiting {
		served, err := k.served(w.kinds...)
		if err == nil && served {
			err = w.start()
		}
		if err != nil {
			errs = append(errs, err)
		}
		if err != nil || !served {
			rest = append(rest, w)
		}
	}
	k.waiting = rest
	k.tries--
	// Also while nobody waits: who asked a moment ago may be about to.
	if len(errs) == 0 && k.tries > 0 {
		return reconcile.Result{RequeueAfter: discoveryPause}, nil
	}
	return reconcile.Result{}, errors.Join(errs...)
}

// ignoreMissing drops the errors that say that a kind is not served.
func ignoreMissing(err error) error {
	if err == nil || meta.IsNoMatchError(err) || discovery.IsGroupDiscoveryFailedError(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
