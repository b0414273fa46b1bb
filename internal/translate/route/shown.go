// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// A body that somebody is shown is held before anything has a request wait. Envoy counts what comes while a filter
// waits for the body, and not what is there by then: behind a filter that waited for something else, a body that is too
// long would be shown in part, and passed on as a whole.

// showing holds bodies on one way that requests take, up to what all can see that are asked there, or takes back what a
// less specific part of the table says of it.
func showing(own *model.ExternalAuth, guards, elsewhere []model.Guard) map[string]*anypb.Any {
	asked := model.Asked(guards)
	if own != nil {
		asked = append(asked, *own)
	}
	most := model.MostShown(asked...)
	switch {
	case most > 0:
		return map[string]*anypb.Any{filterShown: envoy.Any(holding(most))}
	case model.MostShown(model.Asked(elsewhere)...) > 0:
		return map[string]*anypb.Any{filterShown: envoy.Any(become(nothing()))}
	}
	return nil
}

// holding refuses a body that is too long. A request for an upgrade has none: what follows it has no end.
func holding(most uint32) *compositev3.CompositePerRoute {
	upgrade := envoy.Holds(envoy.Matching("upgrade", &matcherv3.HttpRequestHeaderMatchInput{HeaderName: "upgrade"}),
		like(".*"))
	out := become(envoy.Extension("envoy.filters.http.buffer", &bufferv3.Buffer{MaxRequestBytes: envoy.UInt32(most)}))
	out.Matcher.MatcherType = &xdsmatcherv3.Matcher_MatcherList_{MatcherList: &xdsmatcherv3.Matcher_MatcherList{
		Matchers: []*xdsmatcherv3.Matcher_MatcherList_FieldMatcher{{
			Predicate: upgrade, OnMatch: become(nothing()).GetMatcher().GetOnNoMatch(),
		}},
	}}
	return out
}
