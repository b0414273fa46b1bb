// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	discoveryv1 "k8s.io/api/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/wake"
)

// Discover follows the EndpointSlices of a Service until the context ends and calls set with the addresses of all
// replicas but the pod self. One that is not ready counts: its proxies are still connected.
func Discover(
	ctx context.Context, c cache.Cache, service client.ObjectKey, self string, set func(addresses []string),
) error {
	informer, err := c.GetInformer(ctx, &discoveryv1.EndpointSlice{})
	if err != nil {
		return fmt.Errorf("watch EndpointSlices: %w", err)
	}
	changed := wake.New()
	note := func(o any) {
		if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		if s, ok := o.(*discoveryv1.EndpointSlice); ok && s.Namespace == service.Namespace &&
			s.Labels[discoveryv1.LabelServiceName] == service.Name {
			changed.Set()
		}
	}
	handle, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: note, UpdateFunc: func(_, o any) { note(o) }, DeleteFunc: note,
	})
	if err != nil {
		return fmt.Errorf("watch EndpointSlices: %w", err)
	}
	defer func() { _ = informer.RemoveEventHandler(handle) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		var list discoveryv1.EndpointSliceList
		if err := c.List(ctx, &list, client.InNamespace(service.Namespace),
			client.MatchingLabels{discoveryv1.LabelServiceName: service.Name}); err != nil {
			return fmt.Errorf("list the operator's EndpointSlices: %w", err)
		}
		set(addressesOf(list.Items, self))
	}
}

// addressesOf takes one address of each pod, which may be in slices of both IP families.
func addressesOf(slicesOfService []discoveryv1.EndpointSlice, self string) []string {
	of := map[string]string{} // by pod
	for _, s := range slicesOfService {
		if s.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for _, e := range s.Endpoints {
			if len(e.Addresses) == 0 {
				continue
			}
			pod := e.Addresses[0]
			if e.TargetRef != nil {
				pod = e.TargetRef.Name
			}
			if pod == self {
				continue
			}
			address := net.JoinHostPort(e.Addresses[0], strconv.Itoa(names.PortPeers))
			if old := of[pod]; old == "" || cmp.Less(address, old) {
				of[pod] = address
			}
		}
	}
	return slices.Sorted(maps.Values(of))
}
