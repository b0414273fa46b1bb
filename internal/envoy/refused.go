// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net/http"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	statsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stats/v3"

	"github.com/fairway-mesh/fairway/internal/names"
)

// mostVerdicts bounds the verdicts that are counted for one pod. They are of policies: nothing that a peer says.
const mostVerdicts = 200

// Unproved is the verdict before there is one: the handshake has not got as far as who asks.
const Unproved = "nobody has proved who asks"

// Tried are the connections that would have been refused if no policy were only tried.
func Tried() Failed { return expression(`filter_state['` + names.FilterStateDryRun + `'] != b''`) }

// DryRunPrefix begins the names of the dynamic metadata that the filter leaves which decides on requests, about
// policies that are only tried; DryRunCELPrefix of the one that asks expressions.
const (
	DryRunPrefix    = "dry_run_"
	DryRunCELPrefix = "dry_run_cel_"
)

// MetadataRBAC is where these filters leave it, whatever they are called: ShadowPolicy, and ShadowResult, each behind a
// prefix.
const (
	MetadataRBAC = "envoy.filters.http.upstream_rbac"
	ShadowPolicy = "shadow_effective_policy_id"
	ShadowResult = "shadow_engine_result"
	ShadowDenied = "denied"
)

// TriedRequests are those that would have been refused if no policy were only tried, and weren't. An expression costs
// more than all else that is looked at for a request, so it is asked last.
func TriedRequests() Failed {
	denied := func(prefix string) Failed { return inMetadata(MetadataRBAC, prefix+ShadowResult, ShadowDenied) }
	return bothOf(EitherOf(denied(DryRunPrefix), denied(DryRunCELPrefix)),
		expression(`!response.code_details.startsWith('rbac_access_denied')`))
}

// UnknownKey is how the reason begins, among the details of an answer, for which a token is refused whose key the proxy
// doesn't know.
const UnknownKey = "jwt_authn_access_denied{Jwks_doesn"

// WithUnknownKey are requests that were refused for that reason, those of gRPC among them, whose refusals are answers
// like others. Where an extension makes another status of the refusal, nothing is told.
func WithUnknownKey() Failed {
	refused := EitherOf(AnsweredFrom(http.StatusBadRequest), &accesslogv3.AccessLogFilter{
		FilterSpecifier: &accesslogv3.AccessLogFilter_GrpcStatusFilter{GrpcStatusFilter: &accesslogv3.GrpcStatusFilter{
			Statuses: []accesslogv3.GrpcStatusFilter_Status{accesslogv3.GrpcStatusFilter_UNAUTHENTICATED},
		}},
	})
	return bothOf(refused,
		expression(`response.code_details.startsWith('`+UnknownKey+`')`))
}

// TriedBy names, for access logs, the policy that would refuse a request.
const TriedBy = "%DYNAMIC_METADATA(" + MetadataRBAC + ":" + DryRunPrefix + ShadowPolicy + ")%"

// CountRefused counts connections that a verdict refused, or would have if policies weren't only tried, by verdict and
// by what tells destinations apart. Not those that ended before there was one (Unproved).
func CountRefused(destination, format string) []*accesslogv3.AccessLog {
	// Filter state is bytes, and what is of another type is never equal.
	const verdict, tried = `filter_state['` + names.FilterStateVerdict + `']`, `filter_state['` + names.FilterStateDryRun + `']`
	counted := func(expression, state, dryRun string) *accesslogv3.AccessLog {
		return count(mostVerdicts, expression, "authorization_total",
			&statsv3.Config_Tag{Name: destination, ValueFormat: format},
			&statsv3.Config_Tag{Name: "verdict", ValueFormat: PlainState(state)},
			&statsv3.Config_Tag{Name: "dry_run", ValueFormat: dryRun})
	}
	return []*accesslogv3.AccessLog{
		counted(verdict+` != b'' && `+verdict+` != b'`+Unproved+`'`, names.FilterStateVerdict, "false"),
		counted(verdict+` == b'' && `+tried+` != b''`, names.FilterStateDryRun, "true"),
	}
}
