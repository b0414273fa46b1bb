// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"math"
	"slices"
	"time"

	"k8s.io/utils/ptr"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// backendTraffic is what an XBackendTrafficPolicy asks for. Both hold wherever a waypoint sends to the port.
type backendTraffic struct {
	Retries *model.RetryBudget
	Session *model.SessionPersistence
}

func (i *Ingest) backendTrafficPolicies() policyKind[*gwxv1alpha1.XBackendTrafficPolicy, backendTraffic] {
	return policyKind[*gwxv1alpha1.XBackendTrafficPolicy, backendTraffic]{
		in: i.store.BackendTraffic,
		read: func(_ *memo.Ctx, p *gwxv1alpha1.XBackendTrafficPolicy) (backendTraffic, string) {
			out, err := i.backendTraffic(p.Spec)
			if err != nil {
				return backendTraffic{}, err.Error()
			}
			return out, ""
		},
		needs: i.backendTrafficNeeds,
	}
}

func (i *Ingest) backendTraffic(s gwxv1alpha1.BackendTrafficPolicySpec) (out backendTraffic, err error) {
	if out.Retries, err = retryBudget(s.RetryConstraint); err != nil {
		return out, err
	}
	if out.Session, err = sessionPersistence(s.SessionPersistence); err != nil || out.Session == nil {
		return out, err
	}
	sample := model.Rule{SessionPersistence: out.Session, Backends: []model.Backend{{Weight: 1}}}
	if _, err = i.check(sample); err != nil {
		return out, fmt.Errorf("sessionPersistence: %w", err)
	}
	return out, nil
}

// Defaults of the API, and what it allows.
const (
	defaultRetryPercent  = 20
	defaultRetryInterval = 10 * time.Second
	defaultRetryCount    = 10
	maxRetryInterval     = time.Hour
)

// retryBudget as of GEP-3388. To proxies, the least is of retries that are under way at a time. It is as many as may
// begin in a second: the rate is kept where a retry takes no longer than that.
func retryBudget(in *gwxv1alpha1.RetryConstraint) (*model.RetryBudget, error) {
	if in == nil {
		return nil, nil
	}
	out := &model.RetryBudget{Percent: defaultRetryPercent, Interval: defaultRetryInterval}
	if b := in.Budget; b != nil {
		out.Percent = uint32(min(max(ptr.Deref(b.Percent, defaultRetryPercent), 0), 100))
		interval, err := duration(b.Interval)
		if err != nil {
			return nil, fmt.Errorf("retryConstraint.budget.interval: %w", err)
		}
		out.Interval = ptr.Deref(interval, defaultRetryInterval)
	}
	count, per := defaultRetryCount, time.Second
	if r := in.MinRetryRate; r != nil {
		interval, err := duration(r.Interval)
		if err != nil {
			return nil, fmt.Errorf("retryConstraint.minRetryRate.interval: %w", err)
		}
		count, per = ptr.Deref(r.Count, defaultRetryCount), ptr.Deref(interval, time.Second)
	}
	for name, d := range map[string]time.Duration{"budget": out.Interval, "minRetryRate": per} {
		if d <= 0 || d > maxRetryInterval {
			return nil, fmt.Errorf("retryConstraint.%s.interval: %s is not between 0 and %s", name, d, maxRetryInterval)
		}
	}
	least := math.Ceil(float64(max(count, 0)) / per.Seconds())
	out.Least = uint32(min(least, math.MaxUint32))
	return out, nil
}

func (i *Ingest) backendTrafficNeeds(c *memo.Ctx, at []model.Attachment) ParentReport {
	out, served := i.atWaypoint(c, at)
	if !served {
		return out
	}
	asked := i.backendTrafficOf.InForce.Get(c, at[0]).Content
	for _, a := range at {
		if !i.protocolOf.Get(c, a).HTTP() {
			continue
		}
		if asked.Retries != nil {
			out.Clusters = append(out.Clusters, i.clusterOf(c, a))
		}
		out.Attachments = append(out.Attachments, a)
	}
	if len(out.Attachments) == 0 {
		out.Unprogrammed = &Verdict{Reason: v1alpha1.PolicyReasonNotRequests, Message: fmt.Sprintf(
			"no port of Service %s is HTTP, which retryConstraint and sessionPersistence need", at[0].Port.ServiceName())}
	}
	return out
}

// session that the owner of a port has for it.
func (i *Ingest) session(c *memo.Ctx, port model.ServicePort) *model.SessionPersistence {
	if p := i.backendTrafficOf.InForce.Get(c, model.Attachment{Port: port}); p != nil {
		return p.Content.Session
	}
	return nil
}

// withSessions is the rule with the sessions that the owners of its backends have; the rule itself where these have
// none.
func (i *Ingest) withSessions(c *memo.Ctx, r *model.Rule) *model.Rule {
	out := r
	for n, b := range r.Backends {
		if b.Invalid || b.External != nil || r.SessionPersistence != nil {
			continue
		}
		if s := i.session(c, b.Port); s != nil {
			out = changeable(out, r)
			out.Backends[n].Session = s
		}
	}
	return out
}

// changeable is a copy of a rule and its backends, if it is still the rule itself.
func changeable(r, itself *model.Rule) *model.Rule {
	if r != itself {
		return r
	}
	out := *r
	out.Backends = slices.Clone(r.Backends)
	return &out
}
