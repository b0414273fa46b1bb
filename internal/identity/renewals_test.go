// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRenewals(t *testing.T) {
	now, changed := testNow, 0
	r := NewRenewals(func() time.Time { return now }, func() { changed++ })
	cart, pay := "spiffe://cluster.local/ns/shop/sa/cart", "spiffe://cluster.local/ns/shop/sa/pay"
	fail := func(holder, id string, until time.Time, text string) {
		r.Failed(Failure{Holder: holder, Identity: id, Held: Held{NotAfter: until}, Err: errors.New(text)})
	}
	require.False(t, r.Summary().Any)
	fail("n1", cart, now.Add(5*time.Hour), "denied")
	require.Equal(t, 1, changed)
	s := r.Summary()
	require.True(t, s.Any)
	require.Zero(t, s.Failing, "most failures are over in a moment")

	now = now.Add(30 * time.Second)
	fail("n2", pay, time.Time{}, "denied")
	now = now.Add(time.Minute)
	fail("n1", cart, testNow.Add(5*time.Hour), "denied again")
	require.Equal(t, 1, r.Summary().Failing, "one failure may have been followed by a success at another replica")
	fail("n2", pay, time.Time{}, "denied again")
	s = r.Summary()
	require.Equal(t, 2, s.Failing)
	require.Equal(t, 1, s.Without)
	require.Equal(t, testNow, s.Since)
	require.Equal(t, testNow.Add(5*time.Hour), s.First)
	require.Equal(t, cart, s.FirstOf)
	require.Equal(t, []string{"n1", "n2"}, s.Holders)
	require.EqualError(t, s.Err, "denied again")

	r.Renewed("n2", pay)
	r.Renewed("n2", pay)
	require.Equal(t, 1, changed, "another one still fails")
	require.Equal(t, 1, r.Summary().Failing)
	now = now.Add(renewalMemory + time.Second)
	require.False(t, r.Summary().Any, "it was renewed elsewhere, or isn't wanted any more")
}

// What a node says of itself changes nothing for others, and nothing without bound.
func TestRenewalsOfAHostileNode(t *testing.T) {
	now := testNow
	r := NewRenewals(func() time.Time { return now }, func() {})
	for n := range 10 * maxFailingOfOne {
		n %= 2 * maxFailingOfOne
		if n == 0 {
			now = now.Add(renewalGrace)
		}
		r.Failed(Failure{Holder: "bad", Identity: fmt.Sprint(n), Err: errors.New("x"), Held: Held{
			NotAfter: now.Add(1000 * 24 * time.Hour), FailingSince: now.Add(-1000 * 24 * time.Hour),
		}})
	}
	for range 2 {
		now = now.Add(renewalGrace)
		r.Failed(Failure{Holder: "good", Identity: "y", Held: Held{FailingSince: now.Add(time.Hour)}, Err: errors.New("x")})
	}
	s := r.Summary()
	require.Equal(t, maxFailingOfOne+1, s.Failing)
	require.Equal(t, testNow.Add(renewalGrace), s.Since)
	require.True(t, s.First.IsZero())
	for n := range 2 * maxFailing {
		r.Failed(Failure{Holder: fmt.Sprint(n), Identity: "z", Err: errors.New("x")})
	}
	require.Len(t, r.failing, maxFailing)
}

func TestUntil(t *testing.T) {
	for left, want := range map[time.Duration]string{
		-time.Second:                      "2026-03-01T11:59:59Z, which is over",
		9*time.Minute + 30*time.Second:    "2026-03-01T12:09:30Z, in 9 min",
		5*time.Hour + 17*time.Minute:      "2026-03-01T17:17:00Z, in 5 h 10 min",
		30*24*time.Hour + 3*time.Hour + 1: "2026-03-31T15:00:00Z, in 30 d 3 h",
	} {
		require.Equal(t, want, Until(testNow.Add(left), testNow))
	}
}

// TestWhatAHolderReportsIsAllThatFails: what it doesn't name any more is renewed, and others' failures stay.
func TestWhatAHolderReportsIsAllThatFails(t *testing.T) {
	now := testNow
	r := NewRenewals(func() time.Time { return now }, func() {})
	failure := func(id string) Failure {
		return Failure{Identity: id, Held: Held{FailingSince: testNow.Add(-time.Hour)}, Err: errors.New("no entry")}
	}
	r.Reported("n1", []Failure{failure("a"), failure("b")})
	r.Reported("n2", []Failure{failure("a")})
	require.Equal(t, 3, r.Summary().Failing)
	r.Reported("n1", []Failure{failure("b")})
	require.Equal(t, 2, r.Summary().Failing)
	r.Reported("n1", nil)
	require.Equal(t, []string{"n2"}, r.Summary().Holders)
	r.Reported("n2", nil)
	require.False(t, r.Summary().Any)
}
