// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/http"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
)

// This file is about connections that outlive their port: it is no longer served here, since its Service left the
// waypoint, and other connections to it go another way by now. All ports share a filter chain, so Envoy doesn't drain
// these by itself, and a client that keeps its connection would get 404 for ever, as if it had asked for something that
// is not there. It gets one 503 instead, which it may try again, and the connection ends (HTTP/2: GOAWAY).

const filterGone = "fairway.gone"

// headerGone marks the answer to a request whose port has no route table. It is taken out again before callers see it.
const headerGone = "x-fairway-gone"

// answerGone is the answer. A request that no rule of a table matches is another matter.
func answerGone() *hcmv3.LocalReplyConfig {
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter:     envoy.NoTable(),
		StatusCode: envoy.UInt32(http.StatusServiceUnavailable),
		Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{
			InlineString: "this waypoint no longer serves the port: connect again\n",
		}},
		HeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: headerGone, Value: "1"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
	}}}
}

// endConnection ends the connection with that answer. Nothing but a script can have Envoy do so; for all other answers
// it is skipped.
func endConnection() *hcmv3.HttpFilter {
	script := `function envoy_on_response(answer)
  answer:headers():remove("` + headerGone + `")
  answer:streamInfo():drainConnectionUponCompletion()
end
`
	marked := envoy.Holds(envoy.Matching("header", &matcherv3.HttpResponseHeaderMatchInput{HeaderName: headerGone}),
		&xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Exact{Exact: "1"}})
	return envoy.OnlyIf(filterGone, marked, "envoy.filters.http.lua", &luav3.Lua{DefaultSourceCode: &corev3.DataSource{
		Specifier: &corev3.DataSource_InlineString{InlineString: script},
	}})
}
