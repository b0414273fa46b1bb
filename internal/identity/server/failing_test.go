// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/identitytest"
)

// TestWhatAgentsReportIsRemembered: of their own identities, and of nobody else's; a node that is taken over fills
// nothing.
func TestWhatAgentsReportIsRemembered(t *testing.T) {
	o := newOperator(t)
	token := o.Token(identitytest.NodeAgent("n1"), time.Hour)
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	failing := func(id, reason string) identity.Failing {
		return identity.Failing{
			Identity: id, Reason: reason,
			Held: identity.Held{NotAfter: until, FailingSince: time.Now().Add(-time.Hour)},
		}
	}
	report := func(token string, all ...identity.Failing) int {
		t.Helper()
		body, err := json.Marshal(identity.FailingRequest{Failing: all})
		require.NoError(t, err)
		resp, _ := o.do(t, http.MethodPost, identity.PathFailing, token, body)
		return resp.StatusCode
	}
	require.Equal(t, http.StatusUnauthorized, report("nonsense", failing(cart, "x")))
	require.Equal(t, http.StatusOK, report(token, failing(cart, "SPIRE is away"), failing(pay, "of another node")))
	s := o.renewals.Summary()
	require.Equal(t, 1, s.Failing)
	require.Equal(t, cart, s.FirstOf)
	require.True(t, until.Equal(s.First))
	var failure *identity.IssueError
	require.ErrorAs(t, s.Err, &failure)
	require.Equal(t, identity.IssueSPIRE, failure.Reason)
	require.Equal(t, "SPIRE is away", failure.Message)

	require.Equal(t, http.StatusOK, report(token, failing(cart, strings.Repeat("x", 100_000))))
	require.Len(t, o.renewals.Summary().Err.Error(), identity.MaxReason)
	require.Equal(t, http.StatusBadRequest, report(token, make([]identity.Failing, identity.MaxReported+1)...))
	require.Equal(t, http.StatusRequestEntityTooLarge, report(token, failing(cart, strings.Repeat("x", 1<<20))))
	require.Equal(t, http.StatusOK, report(token))
	require.False(t, o.renewals.Summary().Any)
}
