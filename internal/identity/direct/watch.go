// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package direct

import (
	"context"
	"errors"
	"fmt"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// sweepEvery is how often requests are looked for that nobody waits for any more: those older than stale.
	sweepEvery = time.Minute
	stale      = patience + time.Minute
)

// recover finds this replica's pod, which owns what it makes, and deletes what it left when it was restarted. What a
// pod left that is gone, the API server's garbage collector deletes.
func (i *Issuer) recover(ctx context.Context) error {
	if i.opts.Pod != "" {
		pod := &corev1.Pod{}
		err := i.opts.Client.Get(ctx, client.ObjectKey{Namespace: i.opts.Namespace, Name: i.opts.Pod}, pod)
		if err != nil {
			return fmt.Errorf("read pod %s/%s: %w", i.opts.Namespace, i.opts.Pod, err)
		}
		i.owner.Store(&metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID})
	}
	var left certmanagerv1.CertificateRequestList
	err := i.opts.Client.List(ctx, &left, client.InNamespace(i.opts.Namespace), client.MatchingLabels(i.labels()))
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil // no cert-manager
	}
	if err != nil {
		return err
	}
	var errs []error
	for n := range left.Items {
		if i.isWaitedFor(left.Items[n].Name) {
			continue // made by this run, while this went on
		}
		errs = append(errs, client.IgnoreNotFound(i.opts.Client.Delete(ctx, &left.Items[n])))
	}
	return errors.Join(errs...)
}

func (i *Issuer) isWaitedFor(name string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.waiting[name]
	return ok
}

// watch follows all replicas' requests until the context ends. A kind that isn't served, or not any more, is waited
// for.
func (i *Issuer) watch(ctx context.Context) error {
	informer := toolscache.NewSharedIndexInformer(&toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &certmanagerv1.CertificateRequestList{}
			return list, i.opts.Client.List(ctx, list, i.ours(&o)...)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return i.opts.Client.Watch(ctx, &certmanagerv1.CertificateRequestList{}, i.ours(&o)...)
		},
	}, &certmanagerv1.CertificateRequest{}, 0, toolscache.Indexers{})
	err := errors.Join(
		informer.SetTransform(stripped),
		informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *toolscache.Reflector, err error) {
			i.opts.Log.Info("CertificateRequests can't be watched, trying again", "reason", err.Error())
		}),
	)
	if err != nil {
		return err
	}
	handler := toolscache.ResourceEventHandlerFuncs{
		AddFunc:    i.changed,
		UpdateFunc: func(_, now any) { i.changed(now) },
		DeleteFunc: i.deleted,
	}
	if _, err := informer.AddEventHandler(handler); err != nil {
		return err
	}
	go i.sweep(ctx, informer.GetStore())
	informer.RunWithContext(ctx)
	return nil
}

// ours selects the requests of all replicas.
func (i *Issuer) ours(o *metav1.ListOptions) []client.ListOption {
	return []client.ListOption{
		client.InNamespace(i.opts.Namespace),
		client.MatchingLabels{names.LabelManagedBy: names.ManagedBy},
		&client.ListOptions{Raw: o},
	}
}

// stripped leaves out what nobody reads.
func stripped(o any) (any, error) {
	if cr, ok := o.(*certmanagerv1.CertificateRequest); ok {
		cr.ManagedFields = nil
	}
	return o, nil
}

func (i *Issuer) changed(o any) {
	if cr, ok := o.(*certmanagerv1.CertificateRequest); ok {
		i.tell(cr.Name, judge(cr))
	}
}

func (i *Issuer) deleted(o any) {
	key, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(o)
	if err != nil {
		return
	}
	if _, name, err := toolscache.SplitMetaNamespaceKey(key); err == nil {
		i.tell(name, failed(identity.IssueFailed, "somebody deleted the request before it was answered", ""))
	}
}

// sweep deletes requests that their replica should have deleted and didn't.
func (i *Issuer) sweep(ctx context.Context, requests toolscache.Store) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, o := range requests.List() {
			cr, ok := o.(*certmanagerv1.CertificateRequest)
			if ok && cr.DeletionTimestamp == nil && time.Since(cr.CreationTimestamp.Time) > stale {
				i.remove(ctx, cr)
			}
		}
	}
}
