// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"regexp/syntax"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/env"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/model"
)

// badAccessRule says why proxies can't carry a rule out; nil if they can. What the API server would refuse is looked at
// again: policies may be older than a check of it.
func (i *Ingest) badAccessRule(p *v1alpha1.AuthorizationPolicy, r *v1alpha1.AuthorizationRule) *Verdict {
	a := r.ApplicationAttributes
	if a == nil {
		return nil
	}
	invalid := func(format string, args ...any) *Verdict {
		return &Verdict{Reason: string(gwv1.PolicyReasonInvalid), Message: fmt.Sprintf(format, args...)}
	}
	if p.Spec.EnforcementLevel != v1alpha1.EnforcementLevelApplication {
		return invalid("applicationAttributes need enforcementLevel %s", v1alpha1.EnforcementLevelApplication)
	}
	for _, path := range a.Paths {
		m := accessMatch(path.Type, path.Value)
		if err := i.badAccessMatch(path.Type, path.Value, model.Match{Path: &m}); err != nil {
			return invalid("%v", err)
		}
	}
	for _, h := range a.Headers {
		if model.ManySpellings(string(h.Name)) {
			return invalid("%s", tooManySpellings(string(h.Name)))
		}
		if h.Value == nil {
			continue
		}
		m := model.NamedMatch{Name: string(h.Name), StringMatch: accessMatch(h.Type, *h.Value)}
		if err := i.badAccessMatch(h.Type, *h.Value, model.Match{Headers: []model.NamedMatch{m}}); err != nil {
			return invalid("%v", err)
		}
	}
	if a.CEL != nil {
		if err := checkCEL(a.CEL.Expression); err != nil {
			return &Verdict{Reason: v1alpha1.PolicyReasonInvalidCEL, Message: err.Error()}
		}
	}
	return nil
}

// tooManySpellings is about a header that some applications know by more names than proxies are asked for.
func tooManySpellings(header string) string {
	return fmt.Sprintf("header %q can't be told from its other spellings, which applications take for the same: the name "+
		"may have %d hyphens and underscores at most", header, model.MostSeparators)
}

// badAccessMatch asks about a regular expression as if a route had it. It must be whole in a group, too, for it becomes
// part of a longer one: an open \Q would take in what comes behind, and proxies would reject the table.
func (i *Ingest) badAccessMatch(typ v1alpha1.AuthorizationMatchType, value string, m model.Match) error {
	switch typ {
	case "", v1alpha1.AuthorizationMatchExact, v1alpha1.AuthorizationMatchPrefix:
		return nil
	case v1alpha1.AuthorizationMatchRegularExpression:
		if _, err := i.check(model.Rule{Match: m}); err != nil {
			return err
		}
		if _, err := syntax.Parse("(?:"+value+")", syntax.Perl); err != nil {
			return fmt.Errorf(`%q has a \Q without \E: end it`, value)
		}
		return nil
	}
	return fmt.Errorf("match type %q is not supported", typ)
}

// celAttributes are Envoy's attributes of requests and connections, those that are known before there is an answer.
var celAttributes = map[*cel.Type][]string{
	cel.StringType: {
		"request.path", "request.url_path", "request.host", "request.scheme", "request.method", "request.referer",
		"request.useragent", "request.id", "request.protocol", "request.query", "source.address", "destination.address",
		"connection.requested_server_name", "connection.tls_version", "connection.subject_local_certificate",
		"connection.subject_peer_certificate", "connection.dns_san_local_certificate",
		"connection.dns_san_peer_certificate", "connection.uri_san_local_certificate",
		"connection.uri_san_peer_certificate", "connection.sha256_peer_certificate_digest",
	},
	cel.IntType:       {"request.size", "source.port", "destination.port"},
	cel.UintType:      {"connection.id"},
	cel.BoolType:      {"connection.mtls"},
	cel.TimestampType: {"request.time"},
	cel.DynType:       {"metadata", "filter_state"},

	cel.MapType(cel.StringType, cel.StringType): {"request.headers"},
}

// celEnvironment is what an expression may use: the attributes, and the functions that Envoy has. Envoy leaves out
// macros that go through lists, and what makes strings and lists, for these take time and memory.
var celEnvironment = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{cel.StdLib(cel.StdLibSubset(&env.LibrarySubset{
		IncludeMacros: []string{"has"},
		ExcludeFunctions: []*env.Function{
			{Name: "string"},
			{Name: "dyn"},
			{Name: "type"},
			{Name: "_+_", Overloads: []*env.Overload{{ID: "add_string"}, {ID: "add_bytes"}, {ID: "add_list"}}},
		},
	}))}
	for t, all := range celAttributes {
		for _, name := range all {
			options = append(options, cel.Variable(name, t))
		}
	}
	return cel.NewCustomEnv(options...)
})

// checkCEL says why proxies would reject an expression, or could make nothing of it.
func checkCEL(expression string) error {
	environment, err := celEnvironment()
	if err != nil {
		return err
	}
	ast, issues := environment.Compile(expression)
	if issues.Err() != nil {
		first := issues.Errors()[0] // others may come of it
		return fmt.Errorf("the CEL expression can't be used: line %d, column %d: %s", first.Location.Line(),
			first.Location.Column()+1, first.Message)
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) {
		return fmt.Errorf("the CEL expression must be true or false, but it is of type %s", t)
	}
	return nil
}
