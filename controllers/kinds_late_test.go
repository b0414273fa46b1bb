// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	ctrl "sigs.k8s.io/controller-runtime"
)

// lateKind is an API server whose CRD comes while it answers that there is none.
type lateKind struct {
	discovery.DiscoveryInterface

	meanwhile func()
	asked     int
}

func (l *lateKind) ServerResourcesForGroupVersion(string) (*metav1.APIResourceList, error) {
	if l.asked++; l.asked == 1 {
		l.meanwhile()
		return &metav1.APIResourceList{}, nil
	}
	return &metav1.APIResourceList{APIResources: []metav1.APIResource{{Kind: "Gateway"}}}, nil
}

// TestAKindThatComesWhileItIsLookedFor starts what needs it: no other change of a CRD may ever follow.
func TestAKindThatComesWhileItIsLookedFor(t *testing.T) {
	server := &lateKind{}
	kinds := &Kinds{discovery: server}
	var next ctrl.Result
	look := func() {
		var err error
		next, err = kinds.Reconcile(t.Context(), ctrl.Request{})
		require.NoError(t, err)
	}
	server.meanwhile = func() {
		kinds.lookAgain(t.Context(), nil)
		look()
	}
	started := 0
	start := func() error {
		started++
		return nil
	}
	require.NoError(t, kinds.When(start, gatewayKind("Gateway")))
	require.Zero(t, started)
	looks := 0
	for ; next.RequeueAfter > 0; looks++ {
		require.LessOrEqual(t, looks, discoveryTries)
		look()
	}
	require.Equal(t, 1, started)
}
