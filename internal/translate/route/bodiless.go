// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

//go:embed bodiless.lua
var bodilessScript string

//go:embed lengths.lua
var lengthsScript string

// lengths are what a table's answers go by, in the order of requests: behind a rule's authorization service, and before
// and behind one of policies.
var lengths = [3]struct{ place, of string }{{"noted", "rule"}, {"said", "policies"}, {"noted", "policies"}}

// FilterLengths is what the names of the HTTP filters begin with that keep lengths of answers what they are; see
// lengths.lua.
const FilterLengths = "fairway.lengths_"

func filterLengths(n int) string { return FilterLengths + strconv.Itoa(n) }

// bodiless keeps answers of a table whole where somebody else than Envoy and the application makes any: an extension or
// an authorization service, or a TrafficPolicy that says a status. Envoy writes what these say behind the head of an
// answer also where there can be no body.
func bodiless(t model.RouteTable) map[string]*anypb.Any {
	asked := askedBy(t)
	if len(asked) == 0 && t.Requests.Abort == nil &&
		!anyRule(t, func(r *model.Rule) bool { return len(r.Extensions()) > 0 }) {
		return nil
	}
	script := func(source string) *anypb.Any {
		return envoy.Any(become(envoy.Extension("envoy.filters.http.lua", lua(source))))
	}
	out := map[string]*anypb.Any{FilterBodiless: script(bodilessScript)}
	if slices.ContainsFunc(asked, func(a model.ExternalAuth) bool { return a.GRPC }) {
		for n, l := range lengths {
			out[filterLengths(n)] = script(fmt.Sprintf("local place, of = %q, %q\n%s", l.place, l.of, lengthsScript))
		}
	}
	return out
}

// askedBy are the authorization services of a table.
func askedBy(t model.RouteTable) []model.ExternalAuth {
	out := model.Asked(t.Guards)
	anyRule(t, func(r *model.Rule) bool {
		if a := r.ExternalAuth(); a != nil {
			out = append(out, *a)
		}
		for _, b := range r.Backends {
			out = append(out, model.Asked(b.Guards)...)
		}
		return false
	})
	return out
}

// anyRule tells whether something holds of any rule of a table.
func anyRule(t model.RouteTable, holds func(*model.Rule) bool) bool {
	return slices.ContainsFunc(t.Default, holds) ||
		slices.ContainsFunc(t.Callers, func(c model.CallerRules) bool { return slices.ContainsFunc(c.Rules, holds) })
}
