// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/authentication"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// This file says what a request goes by at a waypoint before policies decide.

// answers is the reason why something is answered by the waypoint itself.
func answers(status int, why string) string {
	return fmt.Sprintf("the waypoint itself answers %d: %s", status, why)
}

// answered is what comes of a rule that leads to no application.
func answered(o route.Outcome) Decision {
	out := Decision{Verdict: Answered, Status: o.Status, Reason: answers(o.Status, o.Text)}
	if r := o.Rule; r != nil {
		out.Kind, out.Policy, out.Rule = r.Source.Kind, r.Source.Namespace+"/"+r.Source.Name, r.Label()
		for _, e := range r.Extensions() {
			if o.Status >= http.StatusInternalServerError && e.Unusable() {
				out.Reason += fmt.Sprintf(" (HTTPExtension %s/%s)", r.Source.Namespace, e.Name)
			}
		}
		if a := r.ExternalAuth(); a != nil && a.Unasked() && o.Status == http.StatusServiceUnavailable {
			out.Reason += ": see the status of the route"
		}
	}
	return out
}

// preflight tells whether CORS answers a request.
func preflight(q route.Asked) bool {
	has := func(name string) bool { return q.Says(name) != "" }
	return q.Method == http.MethodOptions && has("Origin") && has("Access-Control-Request-Method")
}

// asked is an authorization service whose word is needed, by a policy if one is named.
func asked(a model.ExternalAuth, policy string) *Decision {
	out := &Decision{Policy: policy}
	if policy != "" {
		out.Kind = kindAuthentication
	}
	if a.Unasked() {
		if a.Open {
			out.Verdict = Allowed
			out.Reason = "the authorization service can't be asked, and requests pass without (failureMode Open)"
			return out
		}
		const status = http.StatusServiceUnavailable
		out.Verdict, out.Status = Answered, status
		out.Reason = answers(status, "the authorization service can't be asked: see the status of what names it")
		return out
	}
	service := fmt.Sprintf("%s:%d", a.Service.ServiceName(), a.Service.Port)
	out.Verdict, out.DependsOn = Depends, "authorization service "+service
	out.Reason = fmt.Sprintf("Service %s is asked before AuthorizationPolicies decide, and may answer by itself", service)
	if policy != "" {
		out.Reason += fmt.Sprintf(" (AuthenticationPolicy %s)", policy)
	}
	if a.Open {
		out.Reason += "; if it is unavailable, requests pass (failureMode Open)"
	} else {
		out.Reason += "; if it is unavailable, the answer is 503"
		out.MayAnswer = append(out.MayAnswer, http.StatusServiceUnavailable)
	}
	if a.MaxBody > 0 {
		out.Reason += fmt.Sprintf("; a body of more than %d bytes is answered 413", a.MaxBody)
		out.MayAnswer = append(out.MayAnswer, http.StatusRequestEntityTooLarge)
	}
	return out
}

// extension is one that a rule in a namespace sends requests through. Whatever its type is, it may answer by itself.
func extension(namespace string, e model.Extension) *Decision {
	name := namespace + "/" + e.Name
	out := &Decision{
		Verdict: Depends, DependsOn: "HTTPExtension " + name, Kind: "HTTPExtension", Policy: name,
	}
	does := doing(e)
	out.MayAnswer = does.mayAnswer
	if !does.request {
		out.Verdict, out.DependsOn = Allowed, ""
		out.Reason = fmt.Sprintf("HTTPExtension %s: %s sees answers only; %s", name, does.what, does.failing)
		return out
	}
	out.Reason = fmt.Sprintf("HTTPExtension %s: %s sees the request before tokens are verified and policies decide, and "+
		"may change headers or answer by itself; %s", name, does.what, does.failing)
	return out
}

// extensionDoes is what there is to say of one by its type.
type extensionDoes struct {
	what, failing string
	mayAnswer     []int
	// request: it sees requests.
	request bool
}

func doing(e model.Extension) extensionDoes {
	switch {
	case e.Processor != nil:
		of := e.Processor.Service
		out := extensionDoes{
			what:      fmt.Sprintf("Service %s:%d, an external processor,", of.ServiceName(), of.Port),
			failing:   "if it is unavailable, the answer is 503, or 504 if it is too slow",
			mayAnswer: []int{http.StatusServiceUnavailable, http.StatusGatewayTimeout},
			request:   e.Processor.Request != (model.Processed{}),
		}
		if e.Processor.Open {
			out.failing, out.mayAnswer = "if it is unavailable, requests go on without it (failureMode Open)", nil
		}
		return out
	case e.Wasm != nil:
		return extensionDoes{
			what: "a module in WebAssembly", request: e.Wasm.Request != (model.Processed{}),
			failing: "if it traps, as where it wants more than 32 MiB of memory, the answer is 503 until it has begun anew, " +
				"and 500 if it changes what it may not; nothing ends it if it runs for ever",
			mayAnswer: []int{http.StatusServiceUnavailable, http.StatusInternalServerError},
		}
	}
	return extensionDoes{
		what: "a script in Lua", request: true,
		failing: "if it fails, executes more than a million instructions or keeps more than 32 MiB, the answer is 500, and " +
			"413 if it asks for a whole body of more than 1 MiB",
		mayAnswer: []int{http.StatusInternalServerError, http.StatusRequestEntityTooLarge},
	}
}

// verify tokens as AuthenticationPolicies have it.
func (v *visit) verify(guards []model.Guard) bool {
	needed := model.Needed(guards)
	if len(needed) == 0 {
		return true
	}
	j := authentication.Judge(v.tokens, needed, v.caller.request)
	if d := v.token(needed, j); d != nil && !v.stage("tokens", d) {
		return false
	}
	if len(j.Verify) == 0 && !v.caller.changed {
		v.caller.claims = no
	}
	return true
}

// token is nil where the policies ask for none.
func (v *visit) token(needed []model.PolicyName, j authentication.Judgement) *Decision {
	out := &Decision{Kind: kindAuthentication, Policy: model.AuthenticationSet(needed)}
	named := kindAuthentication + " " + strings.ReplaceAll(out.Policy, ",", " and ")
	const wrong = "one that isn't good is answered 401, and 403 if it is for another audience"
	switch {
	case j.Unsatisfiable:
		out.Verdict, out.Status = Denied, http.StatusUnauthorized
		out.Reason = named + " can't be satisfied by any request: see its status"
	case v.caller.changed && len(j.Missing)+len(j.Verify)+len(j.Nobodys) > 0:
		out.Verdict, out.DependsOn = Depends, "the request's token"
		out.Reason = fmt.Sprintf("%s; it may have been set or changed on the way; %s",
			judgedBy(slices.Concat(j.Missing, j.Verify, j.Nobodys)), wrong)
		out.MayAnswer = []int{http.StatusUnauthorized, http.StatusForbidden}
	case j.Ambiguous:
		out.Verdict, out.Status = Denied, http.StatusForbidden
		out.Reason = "the request has a token that could be read in two ways: " + named
	case len(j.Missing) > 0:
		out.Verdict, out.Status = Denied, http.StatusUnauthorized
		out.Reason = "the request has no token; " + judgedBy(j.Missing)
	case len(j.Verify) > 0:
		out.Verdict, out.DependsOn = Depends, "the request's token"
		out.Reason = judgedBy(j.Verify) + "; " + wrong
		out.MayAnswer = []int{http.StatusUnauthorized, http.StatusForbidden}
		if v.caller.request == nil {
			out.Reason += withoutToken(j.Verify)
		}
	case len(j.Nobodys) > 0:
		out.Verdict, out.Reason = Allowed, "the request has no token and passes as nobody; "+judgedBy(j.Nobodys)
	default:
		return nil
	}
	return out
}

// withoutToken says what becomes of requests that have none.
func withoutToken(policies []model.Authentication) string {
	if slices.ContainsFunc(policies, func(p model.Authentication) bool { return !p.Tokens.Optional }) {
		return "; one without is answered 401"
	}
	return "; one without passes as nobody"
}

// judgedBy names the issuers of whom a token must be good, of each policy one.
func judgedBy(policies []model.Authentication) string {
	var all []string
	for _, p := range policies {
		var issuers []string
		for _, t := range p.Tokens.Providers {
			issuers = append(issuers, issuer(t))
		}
		of := strings.Join(issuers, " or of ")
		all = append(all, fmt.Sprintf("AuthenticationPolicy %s takes tokens of %s", p.Policy, of))
	}
	return strings.Join(all, ", and ")
}

// issuer of tokens, where they are looked for, and where the keys come from.
func issuer(t model.TokenProvider) string {
	var about, places []string
	for _, h := range t.Headers {
		places = append(places, strings.TrimSpace("header "+h.Name+" "+h.Prefix))
	}
	for _, name := range t.Params {
		places = append(places, "parameter "+name)
	}
	for _, name := range t.Cookies {
		places = append(places, "cookie "+name)
	}
	about = append(about, "in "+strings.Join(places, " or "))
	if len(t.Audiences) > 0 {
		about = append(about, "for "+strings.Join(t.Audiences, " or "))
	}
	switch {
	case t.Remote != nil:
		about = append(about, fmt.Sprintf("keys from Service %s:%d", t.Remote.Service.ServiceName(), t.Remote.Service.Port))
	case t.Keys == "":
		about = append(about, "whose keys can't be had, so none is good")
	}
	return fmt.Sprintf("issuer %s (%s)", t.Issuer, strings.Join(about, ", "))
}

// ask whom AuthenticationPolicies have asked, about requests whose tokens are good.
func (v *visit) ask(guards []model.Guard) bool {
	who, nobody := model.WhomToAsk(guards)
	name := model.AuthenticationSet(model.Needed(guards))
	const stage = "externalAuthorization"
	switch all := model.Asked(guards); {
	case nobody && len(all) > 1:
		const status = http.StatusServiceUnavailable
		return v.stage(stage, &Decision{
			Verdict: Answered, Status: status, Kind: kindAuthentication, Policy: name,
			Reason: answers(status, "policies have different authorization services asked, and so none is: "+
				"AuthenticationPolicy "+strings.ReplaceAll(name, ",", " and ")),
		})
	case nobody, who == nil && len(all) > 0:
		return v.stage(stage, asked(all[0], name))
	case who != nil:
		return v.stage(stage, asked(*who, name))
	}
	return true
}
