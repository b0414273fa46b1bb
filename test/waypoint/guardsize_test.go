// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestLargestGuards: Envoy takes whatever the API lets through.
func TestLargestGuards(t *testing.T) {
	s := newShop(t)
	r := &model.AccessRequest{}
	for n := range 32 {
		at := fmt.Sprintf("/%d/", n)
		r.Paths = append(r.Paths, model.StringMatch{
			Type: []model.MatchType{model.MatchExact, model.MatchPrefix}[n%2], Value: at + strings.Repeat("é/", 340),
		})
		r.Hosts = append(r.Hosts, fmt.Sprintf("%d.%s", n, strings.Repeat("a.", 120)))
	}
	for n := range 16 {
		r.Methods = append(r.Methods, strings.Repeat("M", 60)+fmt.Sprint(n))
		r.Headers = append(r.Headers, model.AccessHeader{Name: fmt.Sprintf("x-a-b-c-%d", n), Value: &model.StringMatch{
			Type: model.MatchExact, Value: strings.Repeat("v", 4096),
		}})
	}
	var rules []model.AccessRule
	for range 9 { // an object holds 1 MB
		rules = append(rules, fromAccount("", r))
	}
	dialled := s.guard(onRequests(accessPolicy("d", true, rules...)))
	require.Equal(t, http.StatusOK, do(t, s.caller(clientID).client(t, dialled, nil), "GET", "http://web/").status)
	s.guard(onRequests(accessPolicy("a", false, rules...)))
}
