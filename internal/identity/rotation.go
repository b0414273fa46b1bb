// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/x509"
	"slices"
	"time"
)

// State is all that the operator must remember about its CA. It lives in one Secret, so that a restarted or another
// replica goes on where the last one stopped, and every replica signs by the same rules. A State is immutable: Step
// makes a new one.
type State struct {
	// generation orders the trust bundles of the mesh; it grows with every change of Roots, and is close to the Unix
	// time so that it grows even when the state was lost.
	generation int64
	// TrustDomain is the domain of every identity that replicas sign.
	TrustDomain string
	// leafLifetime is the lifetime with which every replica signs.
	leafLifetime time.Duration
	// Active signs. Nil until the first CA is there.
	Active *Signer
	// Next waits until its root is trusted everywhere.
	Next *Signer
	// Roots are the anchors of the trust bundle, in order of their arrival.
	Roots []Root
}

// Root is an anchor of the trust bundle.
type Root struct {
	certificate *x509.Certificate
	// Published is when the anchor was first seen in the published bundle; zero before.
	Published time.Time
	// horizon is a time after which no leaf of a former CA under this root is valid; zero when there never was one.
	// The root may leave the bundle then, unless Active or Next is under it.
	horizon time.Time
}

// Observed is what Step learns from the world.
type Observed struct {
	// Signer is the newest CA that an issuer or NewRoot gave; nil when there is none.
	Signer *Signer
	// Origin is that of the CA which the Mesh asks for, whether or not there is one yet; empty for whichever.
	Origin string
	// Published is the bundle as it stands in the ConfigMap; zero when it doesn't.
	Published Bundle
	// TrustDomain is Mesh.spec.trustDomain.
	TrustDomain string
	// LeafLifetime is the one that Mesh.spec.certificates asks for.
	LeafLifetime time.Duration
}

// Policy holds the two delays on which the safety of a rotation rests.
type Policy struct {
	// Propagation is the longest time until a published bundle is used by every proxy that can be reached: the
	// kubelet's refresh of a mounted ConfigMap (up to two minutes) and the agents' own polling.
	Propagation time.Duration
	// Margin is the longest time for which another replica may go on with an older State, plus clock skew. A replica
	// cut off from the API server can't sign for long, since it can't review tokens.
	Margin time.Duration
}

// maxLeafLifetime is the longest that Mesh.spec.certificates.leafLifetime may be.
const maxLeafLifetime = 720 * time.Hour

// DefaultPolicy suits a real cluster.
var DefaultPolicy = Policy{Propagation: 5 * time.Minute, Margin: 10 * time.Minute}

// Bundle is the trust bundle that goes with the state.
func (s State) Bundle() Bundle {
	b := Bundle{Generation: s.generation}
	for _, r := range s.Roots {
		b.Roots = append(b.Roots, r.certificate)
	}
	return b
}

// Step moves the state to a time. Its invariant: while a leaf is valid, its root is in every bundle that was published
// since Propagation before now. So a new root is announced before it signs, and an old one stays until the last leaf
// under it has expired. The one exception is a mesh without any usable CA, where there is no valid leaf to protect and
// a new CA signs at once.
//
// It returns the next state and when to call again if nothing happens before (zero: no need).
func (s State) Step(obs Observed, p Policy, now time.Time) (State, time.Time) {
	n := s
	n.Roots = slices.Clone(s.Roots)
	if obs.TrustDomain != "" {
		n.TrustDomain = obs.TrustDomain
	}
	n.adoptLifetime(obs.LeafLifetime, p, now)
	n.recover(obs.Published, p, now)
	n.markPublished(obs.Published, now)
	n.dismiss(obs.Origin, now)
	n.consider(obs.Signer, now)
	n.promote(p, now)
	n.retire(now)
	if !slices.EqualFunc(n.Roots, s.Roots, func(a, b Root) bool { return a.certificate.Equal(b.certificate) }) {
		n.generation = max(s.generation+1, obs.Published.Generation+1, now.Unix())
	}
	return n, n.wake(p, now)
}

// adoptLifetime remembers that leaves of the former lifetime are still about.
func (s *State) adoptLifetime(want time.Duration, p Policy, now time.Time) {
	if want <= 0 || want == s.leafLifetime {
		return
	}
	if s.Active != nil {
		s.extendHorizon(s.Active, now.Add(s.leafLifetime+p.Margin))
	}
	s.leafLifetime = want
}

// recover takes over the anchors of a bundle whose Secret was lost: their keys are gone, but leaves under them live on,
// nobody knows for how long. Who deletes the Secret to end the trust in a key deletes the ConfigMap too.
func (s *State) recover(published Bundle, p Policy, now time.Time) {
	if s.Active != nil || len(s.Roots) != 0 {
		return
	}
	for _, c := range published.Roots {
		s.Roots = append(s.Roots, Root{certificate: c, Published: now, horizon: now.Add(maxLeafLifetime + p.Margin)})
	}
}

func (s *State) markPublished(published Bundle, now time.Time) {
	for i := range s.Roots {
		if s.Roots[i].Published.IsZero() && published.Has(s.Roots[i].certificate) {
			s.Roots[i].Published = now
		}
	}
}

// dismiss drops a CA that waits and that the Mesh no longer asks for: a change that was taken back during the
// announcement never signs. Where nothing else can sign it stays.
func (s *State) dismiss(wanted string, now time.Time) {
	if wanted != "" && s.Next != nil && s.Next.Origin != wanted && s.Active.Usable(now) {
		s.Next = nil
	}
}

// consider takes note of the CA that the issuer gives now.
func (s *State) consider(c *Signer, now time.Time) {
	if !c.Usable(now) || c.Same(s.Next) {
		return
	}
	if c.Same(s.Active) {
		s.Next = nil // the issuer went back to the CA in use before the other one ever signed
		return
	}
	s.Next = c
	for _, a := range c.anchors() {
		if s.root(a) == nil {
			s.Roots = append(s.Roots, Root{certificate: a})
		}
	}
}

// promote makes Next sign, once its roots have been published for long enough or nothing else can sign.
func (s *State) promote(p Policy, now time.Time) {
	if s.Next == nil || !s.Next.Usable(now) {
		return
	}
	if s.Active.Usable(now) {
		if at, known := s.signsFrom(s.Next, p); !known || now.Before(at) {
			return
		}
	}
	if s.Active != nil {
		s.extendHorizon(s.Active, now.Add(s.leafLifetime+p.Margin))
	}
	s.Active, s.Next = s.Next, nil
}

// signsFrom is when all anchors of a signer have been published for long enough; known is false while some are not.
func (s *State) signsFrom(signer *Signer, p Policy) (at time.Time, known bool) {
	for _, a := range signer.anchors() {
		r := s.root(a)
		if r == nil || r.Published.IsZero() {
			return time.Time{}, false
		}
		if t := r.Published.Add(p.Propagation); t.After(at) {
			at = t
		}
	}
	return at, true
}

// NextSignsFrom is when the next CA begins to sign; known is false where there is none, or its roots aren't published.
func (s State) NextSignsFrom(p Policy) (at time.Time, known bool) {
	if s.Next == nil {
		return time.Time{}, false
	}
	return s.signsFrom(s.Next, p)
}

// retire drops anchors under which no leaf can be valid any more.
func (s *State) retire(now time.Time) {
	s.Roots = slices.DeleteFunc(s.Roots, func(r Root) bool {
		if s.uses(r.certificate) {
			return false
		}
		return !now.Before(r.horizon) || !now.Before(r.certificate.NotAfter)
	})
}

func (s *State) wake(p Policy, now time.Time) time.Time {
	var next time.Time
	at := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if s.Active != nil {
		at(s.Active.NotAfter())
	}
	if s.Next != nil {
		if from, known := s.signsFrom(s.Next, p); known {
			at(from)
		}
	}
	for _, r := range s.Roots {
		if !s.uses(r.certificate) {
			at(r.horizon)
			at(r.certificate.NotAfter)
		}
	}
	return next
}

func (s *State) uses(root *x509.Certificate) bool {
	for _, signer := range []*Signer{s.Active, s.Next} {
		if signer != nil && slices.ContainsFunc(signer.anchors(), root.Equal) {
			return true
		}
	}
	return false
}

func (s *State) root(c *x509.Certificate) *Root {
	for i := range s.Roots {
		if s.Roots[i].certificate.Equal(c) {
			return &s.Roots[i]
		}
	}
	return nil
}

// extendHorizon remembers that leaves of a signer may live until a time, under whichever of its roots.
func (s *State) extendHorizon(signer *Signer, until time.Time) {
	if signer.External != nil {
		until = until.Add(issuedSkew)
	}
	for _, a := range signer.anchors() {
		if r := s.root(a); r != nil && r.horizon.Before(until) {
			r.horizon = until
		}
	}
}

// NeedsRoot tells whether the built-in CA must make a new root: there is none, it comes from an issuer no longer
// wanted, or a fifth of its life is left (of ten years, two: time enough to notice a rotation that is stuck).
func (s State) NeedsRoot(now time.Time) bool {
	if s.Next.Usable(now) && s.Next.Origin == OriginBuiltIn {
		return false
	}
	if !s.Active.Usable(now) || s.Active.Origin != OriginBuiltIn {
		return true
	}
	life := s.Active.Root.NotAfter.Sub(s.Active.Root.NotBefore)
	return !now.Before(s.Active.Root.NotAfter.Add(-life / 5))
}
