// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRotationNeverStrandsALeaf is the invariant of Step, under random new CAs, lost writes, restarts, replicas that
// lag, changed lifetimes and a lost Secret: every bundle that a proxy can hold verifies every valid leaf.
func TestRotationNeverStrandsALeaf(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newWorld(t, seed).run(400) })
	}
}

type issuedLeaf struct {
	root     *x509.Certificate
	notAfter time.Time
}

type publishedBundle struct {
	bundle Bundle
	at     time.Time
}

type world struct {
	t         *testing.T
	rnd       *rand.Rand
	now       time.Time
	state     State
	offered   *Signer
	lifetime  time.Duration
	published []publishedBundle // in order; the last is current
	past      []State           // what lagging replicas may still use, with
	pastAt    []time.Time       // the time from which they were superseded
	leaves    []issuedLeaf      // those that may be valid
	emergency map[string]bool   // roots that began to sign without announcement, because nothing else could
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: testNow, lifetime: time.Hour, emergency: map[string]bool{}}
	w.offered = newRoot(t, DefaultRootLifetime, w.now)
	return w
}

func (w *world) run(ticks int) {
	for range ticks {
		w.now = w.now.Add(time.Duration(1+w.rnd.IntN(240)) * time.Second)
		w.event()
		w.keeper()
		w.sign()
		w.check()
		if w.t.Failed() {
			return
		}
	}
}

func (w *world) event() {
	switch p := w.rnd.IntN(1000); {
	case p < 30:
		w.offered = newRoot(w.t, time.Duration(1+w.rnd.IntN(50))*time.Hour, w.now)
	case p < 60:
		root := newRoot(w.t, DefaultRootLifetime, w.now)
		w.offered = newIntermediate(w.t, root, time.Duration(1+w.rnd.IntN(20))*time.Hour, w.now)
	case p >= 900 && p < 960:
		w.offered = w.external()
	case p < 80 && w.offered.External == nil && w.offered.Key.Matches(w.offered.Root) && w.offered.Usable(w.now):
		w.offered = newIntermediate(w.t, w.offered, 12*time.Hour, w.now)
	case p < 90:
		w.lifetime = time.Duration(10+w.rnd.IntN(120)) * time.Minute
	case p < 93:
		w.state = State{}
	}
}

func (w *world) bundle() Bundle {
	if len(w.published) == 0 {
		return Bundle{}
	}
	return w.published[len(w.published)-1].bundle
}

func (w *world) keeper() {
	if w.rnd.IntN(10) == 0 {
		return // no leader for now
	}
	before := w.state
	obs := Observed{
		Signer: w.offered, Origin: w.offered.Origin, Published: w.bundle(), TrustDomain: testDomain,
		LeafLifetime: w.lifetime,
	}
	if w.rnd.IntN(50) == 0 { // another issuer is asked, and gives nothing yet
		obs.Signer, obs.Origin = nil, "another"
	}
	next, _ := before.Step(obs, testPolicy, w.now)
	if next.Active == nil || w.rnd.IntN(10) == 0 {
		return // the Secret can't be written
	}
	if w.rnd.IntN(4) == 0 { // the operator restarts
		data, err := next.Encode()
		require.NoError(w.t, err)
		next, err = DecodeState(data)
		require.NoError(w.t, err)
	}
	if !next.Active.Same(before.Active) && !before.Active.Usable(w.now) {
		for _, a := range next.Active.anchors() {
			w.emergency[fingerprint(a)] = true
		}
	}
	if before.Active != nil {
		w.past, w.pastAt = append(w.past, before), append(w.pastAt, w.now)
	}
	w.state = next
	if w.rnd.IntN(10) == 0 {
		return // the ConfigMap can't be written
	}
	if b := next.Bundle(); !b.Equal(w.bundle()) {
		assert.Greater(w.t, b.Generation, w.bundle().Generation)
		w.published = append(w.published, publishedBundle{b, w.now})
	}
}

// sign lets every replica issue a leaf by its own, perhaps old, state.
func (w *world) sign() {
	issue := func(s State) {
		if !s.Active.Usable(w.now) {
			return
		}
		if s.Active.External != nil {
			for _, a := range s.Active.anchors() { // the issuer may use any of them, and its clock may be wrong
				w.leaves = append(w.leaves, issuedLeaf{a, earlier(w.now.Add(s.leafLifetime+issuedSkew), a.NotAfter)})
			}
			return
		}
		w.leaves = append(w.leaves, issuedLeaf{s.Active.Root, earlier(w.now.Add(s.leafLifetime), s.Active.NotAfter())})
	}
	issue(w.state)
	for i, s := range w.past {
		if w.now.Before(w.pastAt[i].Add(testPolicy.Margin)) {
			issue(s)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// external is an issuer that signs leaves itself. Its roots are those that it had, without one or with a new one.
func (w *world) external() *Signer {
	var roots []*x509.Certificate
	if w.offered.External != nil {
		roots = slices.Clone(w.offered.External.Anchors)
	}
	if len(roots) > 1 && w.rnd.IntN(2) == 0 {
		n := w.rnd.IntN(len(roots))
		roots = slices.Delete(roots, n, n+1)
	} else {
		roots = append(roots, newRoot(w.t, time.Duration(10+w.rnd.IntN(50))*time.Hour, w.now).Root)
	}
	if len(roots) > maxAnchors {
		roots = roots[1:]
	}
	s, err := NewExternal(IssuerRef{Name: "corp"}, EncodeCertificates(roots), w.now)
	require.NoError(w.t, err)
	return s
}

// trustedSince is when a root came into the bundles that still have it; now if it isn't published. One that was
// announced, dismissed and comes back counts from then.
func (w *world) trustedSince(root *x509.Certificate) time.Time {
	since := w.now
	for _, p := range slices.Backward(w.published) {
		if !p.bundle.Has(root) {
			break
		}
		since = p.at
	}
	return since
}

func (w *world) check() {
	keep := w.leaves[:0]
	for _, l := range w.leaves {
		if w.now.Before(l.notAfter) {
			keep = append(keep, l)
		}
	}
	w.leaves = keep
	roots := map[string]*x509.Certificate{}
	for _, l := range w.leaves {
		roots[fingerprint(l.root)] = l.root
	}
	for i, p := range w.published {
		superseded := w.now
		if i+1 < len(w.published) {
			superseded = w.published[i+1].at
		}
		for fp, root := range roots {
			oldest := w.now.Add(-testPolicy.Propagation)
			if since := w.trustedSince(root); w.emergency[fp] && since.After(oldest) {
				oldest = since // it began in a mesh without a CA: what was published before can't know it
			}
			if !superseded.After(oldest) || p.bundle.Has(root) {
				continue
			}
			assert.Failf(w.t, "stranded leaf", "at %s, bundle %d of %s (in use until %s) lacks a root with valid leaves",
				w.now, i, p.at, superseded)
			return
		}
	}
}
