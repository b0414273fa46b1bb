// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"net/http"

	"github.com/fairway-mesh/fairway/internal/model"
)

// This file says what the owner of a Service has done with all requests to it (TrafficPolicy), in the order of Envoy's
// filters.

// limits may refuse any caller's request, and hold nobody back for who it is.
func (v *visit) limits() bool {
	r := v.table.Requests
	if v.answers {
		r.GlobalLimit = nil // Envoy asks of requests only that are to go on
	}
	for _, s := range []struct {
		name string
		d    *Decision
	}{
		{"rateLimit.local", localLimit(r.LocalLimit)},
		{"buffering.maxRequestKiB", buffer(r.MaxBytes)},
		{"rateLimit.global", globalLimit(r.GlobalLimit, v.caller)},
		{"faults", abort(r.Abort)},
	} {
		changed := v.caller.changed
		if !v.limit(s.name, s.d) {
			return false
		}
		v.caller.changed = changed // none of them changes anything that policies go by
	}
	return true
}

// limit is a stage of which the owner says.
func (v *visit) limit(name string, d *Decision) bool {
	if d != nil {
		d.Kind, d.Policy = kindTraffic, v.traffic
	}
	return v.stage(name, d)
}

// hold says what becomes of what is answered to a request that goes on.
func (v *visit) hold() { v.limit("buffering.maxResponseKiB", hold(v.table.Requests.MaxAnswerBytes)) }

func localLimit(l *model.LocalLimit) *Decision {
	if l == nil {
		return nil
	}
	return &Decision{
		Verdict: Allowed, MayAnswer: []int{http.StatusTooManyRequests},
		Reason: fmt.Sprintf("each proxy of the waypoint lets %d requests pass in %s, of all callers; the rest is answered "+
			"429", l.Requests, l.Unit),
	}
}

func buffer(most uint32) *Decision {
	if most == 0 {
		return nil
	}
	return &Decision{
		Verdict: Allowed, MayAnswer: []int{http.StatusRequestEntityTooLarge},
		Reason: fmt.Sprintf("a body of more than %d bytes is answered 413", most),
	}
}

// hold is about what the application answers. Where that doesn't come in full, none of it is passed on.
func hold(most uint32) *Decision {
	if most == 0 {
		return nil
	}
	return &Decision{
		Verdict: Allowed, MayAnswer: []int{
			http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
		},
		Reason: fmt.Sprintf("the answer is held until it is there in full: one of more than %d bytes becomes a 500, one "+
			"that breaks off 502 or 503, and one that isn't there within the route's timeout 504", most),
	}
}

// globalLimit is not said to depend on its service: that counts requests, and has no say in who may call.
func globalLimit(l *model.GlobalLimit, c Caller) *Decision {
	const closed = http.StatusServiceUnavailable
	if l == nil {
		return nil
	}
	switch counted := counts(*l, c); {
	case counted == no:
		const reason = "no descriptor applies to the request, so the rate limit service isn't asked"
		return &Decision{Verdict: Allowed, Reason: reason}
	case l.Invalid && l.Closed && counted == unknown:
		return &Decision{
			Verdict: Depends, DependsOn: "the request's headers", MayAnswer: []int{closed},
			Reason: "the rate limit service can't be asked (failureMode Closed): 503 if a descriptor applies, which goes by " +
				"headers that are not known here",
		}
	case l.Invalid && l.Closed:
		return &Decision{Verdict: Answered, Status: closed, Reason: answers(closed,
			"the rate limit service can't be asked (failureMode Closed): see the status of the TrafficPolicy")}
	case l.Invalid:
		const reason = "the rate limit service can't be asked, and requests pass (failureMode Open)"
		return &Decision{Verdict: Allowed, Reason: reason}
	}
	out := &Decision{Verdict: Allowed, MayAnswer: []int{http.StatusTooManyRequests}}
	out.Reason = fmt.Sprintf("Service %s:%d is asked, and what it finds too much is answered 429",
		l.Service.ServiceName(), l.Service.Port)
	if l.Closed {
		out.Reason += "; if it is unavailable, the answer is 503"
		out.MayAnswer = append(out.MayAnswer, closed)
	} else {
		out.Reason += "; if it is unavailable, requests pass (failureMode Open)"
	}
	return out
}

// counts tells whether the service is asked about a request: a descriptor applies that needs no header, or only such as
// are there.
func counts(l model.GlobalLimit, c Caller) (out truth) {
	for _, entries := range l.Descriptors {
		applies := yes
		for _, e := range entries {
			there := e.Header == "" || c.request != nil && c.request.Carries(e.Header)
			switch {
			case e.Header != "" && (c.changed || c.request == nil):
				applies = min(applies, unknown)
			case !there:
				applies = no
			}
		}
		out = max(out, applies)
	}
	return out
}

func abort(a *model.Abort) *Decision {
	switch {
	case a == nil || a.Percent == 0:
		return nil
	case a.Percent >= 100:
		return &Decision{
			Verdict: Answered, Status: int(a.Status), Reason: answers(int(a.Status), "a fault is injected into all requests"),
		}
	}
	return &Decision{
		Verdict: Depends, DependsOn: "chance", MayAnswer: []int{int(a.Status)},
		Reason: fmt.Sprintf("a fault is injected into %d %% of the requests: they are answered %d", a.Percent, a.Status),
	}
}
