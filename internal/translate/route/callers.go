// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"strings"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Headers that say who calls and from where. The proxy has a say in their values, so nobody else knows them.
const (
	headerForwardedFor   = "x-forwarded-for"
	headerForwardedProto = "x-forwarded-proto"
	headerRequestID      = "x-request-id"
)

// aboutCallers are headers that tell the application of a caller what the proxy knows.
var aboutCallers = []string{headerClientCert, headerForwardedFor, headerForwardedProto}

// RemoveLookalikes of these headers from a request that arrives: to some applications they are the same.
func RemoveLookalikes() (out []*mutationrulesv3.HeaderMutation) {
	for _, name := range aboutCallers {
		for _, other := range model.OtherSpellings(name) {
			out = append(out, &mutationrulesv3.HeaderMutation{
				Action: &mutationrulesv3.HeaderMutation_Remove{Remove: other},
			})
		}
	}
	return out
}

// withoutInTrailers has the same headers, however they are spelled, and those that are Envoy's taken out of trailers:
// the proxy puts none there, and some applications read trailers as headers.
func withoutInTrailers() *headermutationv3.Mutations {
	return &headermutationv3.Mutations{RequestTrailersMutations: []*mutationrulesv3.HeaderMutation{
		envoy.RemoveHeaders(matching(controlHeaders + ".*|" + anyOf(aboutCallers, model.SpellingsPattern))),
	}}
}

// controlHeaders begin like this, in all spellings.
var controlHeaders = model.SpellingsPattern(envoy.ControlHeaders)

// keptOut tells whether a header is taken out of requests that arrive, as RemoveLookalikes and envoy.TrustNoCaller say.
func keptOut(name string) bool {
	spelled := model.HeaderSpelled(name)
	return strings.HasPrefix(spelled, envoy.ControlHeaders) || spelled == headerClientCert ||
		spelled != name && slices.Contains(aboutCallers, spelled)
}
