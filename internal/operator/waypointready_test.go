// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/status/serving"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// proxies are those of a waypoint, by what they have.
type proxies []string

func (p proxies) State(xds.Key) (out xds.ResourceState) {
	out.Version = "new"
	for n, has := range p {
		a := xds.ProxyAck{Proxy: xds.Proxy{PodUID: string(rune('a' + n))}, State: xds.Pending, Version: has}
		if has == out.Version {
			a.State = xds.Acked
		}
		out.Proxies = append(out.Proxies, a)
	}
	return out
}

// TestAWaypointIsLookedAtWhenItsProxiesComeOrGo, and not whenever they answer.
func TestAWaypointIsLookedAtWhenItsProxiesComeOrGo(t *testing.T) {
	gateway := types.NamespacedName{Namespace: "a", Name: "w"}
	r := &ready{of: map[types.NamespacedName]int{}}
	for _, step := range []struct {
		has     proxies
		changed bool
	}{
		{proxies{}, false},
		{proxies{""}, false},
		{proxies{"old"}, true},
		{proxies{"new"}, false},
		{proxies{"old", ""}, false},
		{proxies{"new", "new"}, true},
		{proxies{"", "new"}, true},
		{proxies{}, true},
		{proxies{}, false},
	} {
		r.acks = step.has
		require.Equal(t, step.changed, r.changed(gateway), "%q", step.has)
	}
	require.Empty(t, r.of)
}

// TestAProxyThatGoesAndRejectsNothingAnyMoreIsCounted: one answer is news in both ways, and so is the next one.
func TestAProxyThatGoesAndRejectsNothingAnyMoreIsCounted(t *testing.T) {
	gateway := types.NamespacedName{Namespace: "a", Name: "w"}
	acks := &answers{}
	trigger := controllers.NewTrigger()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	defer queue.ShutDown()
	require.NoError(t, trigger.Start(t.Context(), queue))
	p := &plane{
		triggers: triggers{programmed: trigger}, rejections: newRejections(acks, nil),
		ready:  &ready{acks: acks, of: map[types.NamespacedName]int{}},
		writer: serving.NewEntries(nil, acks, logr.Discard()),
	}
	for n, say := range []answers{
		{{State: xds.Acked, Version: "old"}},
		{{State: xds.Rejected, Version: "old", Error: "its own words"}},
		{},
		{{State: xds.Acked, Version: "new"}},
	} {
		*acks = say
		p.acknowledged(catalogue.Serving(gateway))
		require.Equal(t, 1, queue.Len(), "answer %d", n)
		r, _ := queue.Get()
		queue.Done(r)
		queue.Forget(r)
	}
}

type answers []xds.ProxyAck

func (a *answers) State(xds.Key) xds.ResourceState {
	return xds.ResourceState{Version: "new", Proxies: *a}
}
