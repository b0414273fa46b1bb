// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/identity"
)

// TestRenewalsInWords: why, since when, and how long the others hold.
func TestRenewalsInWords(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 3, 0, 0, time.UTC)
	cart := "spiffe://cluster.local/ns/shop/sa/cart"
	require.Equal(t, controllers.RenewalStatus{}, renewalStatus(identity.RenewalSummary{Any: true}, now))
	denied := fmt.Errorf("wrapped: %w", identity.Issuef(identity.IssueDenied, "no certificate from X: policy."))
	s := identity.RenewalSummary{
		Any: true, Failing: 3, Since: now.Add(-time.Hour), First: now.Add(5*time.Hour + 12*time.Minute), FirstOf: cart,
		Holders: []string{"a", "b", "c", "d", "e"}, Err: denied,
	}
	require.Equal(t, controllers.RenewalStatus{
		Reason: v1alpha1.MeshReasonIssuerDenied,
		Message: "3 identities can't be renewed, the first since 2026-03-01T11:03:00Z: wrapped: no certificate from X: " +
			"policy. All of them hold until 2026-03-01T17:15:00Z, in 5 h 10 min, when that of " + cart +
			" ends. Asked for by a, b, c and 2 more.",
	}, renewalStatus(s, now))

	s.Without, s.Holders, s.Err = 1, s.Holders[:1], errors.New("no CA")
	said := renewalStatus(s, now)
	require.True(t, said.Lost)
	require.Equal(t, v1alpha1.MeshReasonRenewalFailing, said.Reason)
	require.Contains(t, said.Message,
		"1 of them has no valid certificate, so its pods can't connect. The others hold until")

	s.Without, s.FirstOf = 3, ""
	require.Contains(t, renewalStatus(s, now).Message,
		"None of them has a valid certificate, so their pods can't connect.")
	s.Failing, s.Without = 1, 0
	s.FirstOf = cart
	require.Contains(t, renewalStatus(s, now).Message, "1 identity can't be renewed since 2026-03-01T11:03:00Z: no CA. "+
		"It holds until 2026-03-01T17:15:00Z, in 5 h 10 min. It is "+cart+".")
}
