// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"fmt"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/model"
)

// duration reads a GEP-2257 duration, which Go's parser understands; the CRD has checked its form.
func duration(d *gwv1.Duration) (*time.Duration, error) {
	if d == nil {
		return nil, nil
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil {
		return nil, err
	}
	return &v, nil
}

func (b *routeBuilder) retry(rule model.Rule, in *gwv1.HTTPRouteRetry) (*model.Retry, error) {
	if in == nil {
		return nil, nil
	}
	out := &model.Retry{Attempts: 1}
	for _, c := range in.Codes {
		out.Codes = append(out.Codes, uint32(max(c, 0))) //nolint:gosec // not negative
	}
	if in.Attempts != nil {
		if *in.Attempts <= 0 {
			return nil, nil
		}
		out.Attempts = *in.Attempts
	}
	if out.Attempts > model.MaxRetries {
		out.Attempts = model.MaxRetries
		b.note(fmt.Sprintf("rule %s: retry.attempts is capped at %d", ruleLabel(rule), model.MaxRetries))
	}
	backoff, err := duration(in.Backoff)
	if err != nil {
		return nil, fmt.Errorf("retry.backoff: %w", err)
	}
	if backoff != nil {
		out.Backoff = *backoff
	}
	return out, nil
}

// session of a rule. A header has no room for more than an endpoint.
func (b *routeBuilder) session(rule *model.Rule, in *gwv1.SessionPersistence) (err error) {
	if rule.SessionPersistence, err = sessionPersistence(in); err != nil || rule.SessionPersistence == nil {
		return err
	}
	if rule.SessionPersistence.Header && len(rule.Backends) > 1 {
		b.note(fmt.Sprintf("rule %s: sessionPersistence of type Header keeps sessions with the endpoints of each backend, "+
			"and which backend a request goes to is by weight each time (type Cookie stays with the backend)", ruleLabel(*rule)))
	}
	return nil
}

// sessionPersistence as of GEP-1619. The proxies keep no record of sessions, so only what the client itself keeps can
// end one: the lifetime of a permanent cookie.
func sessionPersistence(in *gwv1.SessionPersistence) (*model.SessionPersistence, error) {
	if in == nil {
		return nil, nil
	}
	out := &model.SessionPersistence{
		Name:   deref(in.SessionName),
		Header: in.Type != nil && *in.Type == gwv1.HeaderBasedSessionPersistence,
	}
	absolute, err := duration(in.AbsoluteTimeout)
	if err != nil {
		return nil, fmt.Errorf("sessionPersistence.absoluteTimeout: %w", err)
	}
	permanent := in.CookieConfig != nil && deref(in.CookieConfig.LifetimeType) == string(gwv1.PermanentCookieLifetimeType)
	switch {
	case out.Header && in.CookieConfig != nil:
		return nil, errors.New("sessionPersistence.cookieConfig requires type Cookie")
	case permanent && (absolute == nil || *absolute <= 0):
		return nil, errors.New("sessionPersistence.cookieConfig.lifetimeType Permanent requires absoluteTimeout")
	case !permanent && absolute != nil && *absolute > 0:
		return nil, errors.New("sessionPersistence.absoluteTimeout requires cookieConfig.lifetimeType Permanent")
	case permanent:
		out.CookieLifetime = *absolute
	}
	return out, nil
}
