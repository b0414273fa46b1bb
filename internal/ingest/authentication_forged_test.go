// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestForgedSpellings: a header that a policy vouches for is the same in every spelling that servers take for it, on
// both sides: as the policy has it and as a rule sets it.
func TestForgedSpellings(t *testing.T) {
	for _, policy := range []model.Authentication{
		{Asked: &model.ExternalAuth{Taken: []string{"X_User-Name"}}},
		{Tokens: &model.Tokens{Providers: []model.TokenProvider{{Claims: []model.ClaimHeader{{Header: "x_user-name"}}}}}},
		{Tokens: &model.Tokens{Providers: []model.TokenProvider{{Headers: []model.TokenHeader{{Name: "x_user-name"}}}}}},
	} {
		for name, same := range map[string]bool{
			"x_user-name": true, "X-User-Name": true, "x_user_name": true, "X-User": false,
		} {
			rule := model.Rule{Filters: []model.Filter{{RequestHeaders: &model.HeaderChange{
				Set: []model.Header{{Name: name, Value: "eve"}},
			}}}}
			changes := changesOf(rule, model.Backend{})
			require.Len(t, changes, 1)
			require.Equal(t, same, changes[0].of(policy) != "", "%s of %+v", name, policy)
		}
	}
}

// TestHeadersOfTokensAreSpelledOneByOne: no header of a token or a claim has more spellings than proxies are asked for,
// or is the proxy's own in another spelling.
func TestHeadersOfTokensAreSpelledOneByOne(t *testing.T) {
	inline := `{"keys":[{"kty":"EC","kid":"one","use":"sig","alg":"ES256","crv":"P-256",` +
		`"x":"WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis","y":"y77t-RvAHRKTsSGdIYUfweuOvwrvDD-Q3Hv5J0fSKbE"}]}`
	for name, why := range map[v1alpha1.JWTHeaderName]string{
		"x-a_b-c-d-e": "", "x_user": "",
		"x-a_b-c-d-e-f": "at most", "x_forwarded_client-cert": "can't be in", "X_Envoy-Any": "can't be in",
		"content_length": "can't be in", "x-fairway_port": "can't be in",
	} {
		for _, p := range []v1alpha1.JWTProvider{
			{FromHeaders: []v1alpha1.JWTHeader{{Name: name}}},
			{ClaimsToHeaders: []v1alpha1.JWTClaimHeader{{Header: name, Claim: "sub"}}},
		} {
			p.Issuer, p.JWKS.Inline = "https://login.example", &inline
			_, err := tokenProvider(&p)
			if why == "" {
				require.NoError(t, err, name)
			} else {
				require.ErrorContains(t, err, why, name)
			}
		}
	}
}
