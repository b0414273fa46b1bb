// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
)

// Keys of the CA Secret. The first three are those of a TLS Secret, so that an administrator can bring a CA of his own
// by writing only them.
const (
	keyChain       = "tls.crt"
	keyKey         = "tls.key"
	keyBundle      = names.TrustBundleKey
	keyNextChain   = "next.crt"
	keyNextKey     = "next.key"
	keyBookkeeping = "state.json"
)

// bookkeeping is what PEM can't say.
type bookkeeping struct {
	TrustDomain         string                     `json:"trustDomain"`
	LeafLifetimeSeconds int64                      `json:"leafLifetimeSeconds"`
	ActiveOrigin        string                     `json:"activeOrigin"`
	NextOrigin          string                     `json:"nextOrigin,omitempty"`
	ActiveExternal      *externalBookkeeping       `json:"activeExternal,omitempty"`
	NextExternal        *externalBookkeeping       `json:"nextExternal,omitempty"`
	Roots               map[string]rootBookkeeping `json:"roots"` // by fingerprint
}

// externalBookkeeping stands for the certificates and the key of a CA that keeps them to itself.
type externalBookkeeping struct {
	External
	Anchors []string `json:"anchors"` // fingerprints of roots of the bundle
}

type rootBookkeeping struct {
	Published *time.Time `json:"published,omitempty"`
	Horizon   *time.Time `json:"horizon,omitempty"`
}

// Encode writes the state as data of the CA Secret. Only a state with an active CA can be written.
func (s State) Encode() (map[string][]byte, error) {
	if s.Active == nil {
		return nil, errors.New("there is no CA to write")
	}
	book := bookkeeping{
		TrustDomain:         s.TrustDomain,
		LeafLifetimeSeconds: int64(s.leafLifetime / time.Second),
		ActiveOrigin:        s.Active.Origin,
		Roots:               map[string]rootBookkeeping{},
	}
	for _, r := range s.Roots {
		book.Roots[fingerprint(r.certificate)] = rootBookkeeping{
			Published: optional(r.Published),
			Horizon:   optional(r.horizon),
		}
	}
	data := map[string][]byte{keyBundle: s.Bundle().PEM()}
	var err error
	if book.ActiveExternal, err = encodeSigner(data, keyChain, keyKey, s.Active); err != nil {
		return nil, err
	}
	if s.Next != nil {
		book.NextOrigin = s.Next.Origin
		if book.NextExternal, err = encodeSigner(data, keyNextChain, keyNextKey, s.Next); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(book)
	if err != nil {
		return nil, fmt.Errorf("encode the CA's state: %w", err)
	}
	data[keyBookkeeping] = text
	return data, nil
}

// encodeSigner writes chain and key, or returns what stands for them.
func encodeSigner(data map[string][]byte, chainKey, keyKey string, s *Signer) (*externalBookkeeping, error) {
	if s.External != nil {
		out := &externalBookkeeping{External: *s.External}
		for _, a := range s.External.Anchors {
			out.Anchors = append(out.Anchors, fingerprint(a))
		}
		return out, nil
	}
	key, err := s.Key.PEM()
	if err != nil {
		return nil, err
	}
	chain := s.Chain
	if len(chain) == 0 {
		chain = append(chain, s.Root)
	}
	data[chainKey], data[keyKey] = EncodeCertificates(chain), key
	return nil, nil //nolint:nilnil // a signer with a key has no such bookkeeping
}

// decodeExternal finds the anchors of an external CA in the bundle.
func decodeExternal(origin string, book *externalBookkeeping, bundle Bundle) (*Signer, error) {
	known := make(map[string]*x509.Certificate, len(bundle.Roots))
	for _, c := range bundle.Roots {
		known[fingerprint(c)] = c
	}
	e := &External{Issuer: book.Issuer}
	for _, f := range book.Anchors {
		c, ok := known[f]
		if !ok {
			return nil, fmt.Errorf("%s: the root %.64s of %s isn't in %s", keyBookkeeping, f, book.Issuer, keyBundle)
		}
		e.Anchors = append(e.Anchors, c)
	}
	if len(e.Anchors) == 0 {
		return nil, fmt.Errorf("%s: %s has no root", keyBookkeeping, book.Issuer)
	}
	return &Signer{Origin: origin, External: e}, nil
}

// DecodeState reads the data of the CA Secret. A Secret with only tls.crt, tls.key and ca.crt is a CA that an
// administrator brought: it becomes the built-in one, and other anchors in its ca.crt stay trusted while they are
// valid.
func DecodeState(data map[string][]byte) (State, error) {
	bundle, err := ParseBundle(data[keyBundle])
	if err != nil {
		return State{}, fmt.Errorf("%s: %w", keyBundle, err)
	}
	book := bookkeeping{ActiveOrigin: OriginBuiltIn}
	text, written := data[keyBookkeeping]
	if written {
		if err := json.Unmarshal(text, &book); err != nil {
			return State{}, fmt.Errorf("%s: %w", keyBookkeeping, err)
		}
	}
	s := State{
		generation:   bundle.Generation,
		TrustDomain:  book.TrustDomain,
		leafLifetime: time.Duration(book.LeafLifetimeSeconds) * time.Second,
	}
	if err := s.decodeSigners(data, book, bundle); err != nil {
		return State{}, err
	}
	for _, c := range bundle.Roots {
		r := Root{certificate: c}
		if b, ok := book.Roots[fingerprint(c)]; ok {
			r.Published, r.horizon = value(b.Published), value(b.Horizon)
		} else {
			r.horizon = c.NotAfter
		}
		s.Roots = append(s.Roots, r)
	}
	return s, nil
}

func (s *State) decodeSigners(data map[string][]byte, book bookkeeping, bundle Bundle) (err error) {
	if book.ActiveExternal != nil {
		s.Active, err = decodeExternal(book.ActiveOrigin, book.ActiveExternal, bundle)
	} else {
		s.Active, err = ParseSigner(book.ActiveOrigin, data[keyChain], data[keyKey], data[keyBundle])
	}
	if err != nil {
		return err
	}
	switch {
	case book.NextExternal != nil:
		s.Next, err = decodeExternal(book.NextOrigin, book.NextExternal, bundle)
	case len(data[keyNextChain]) > 0:
		s.Next, err = ParseSigner(book.NextOrigin, data[keyNextChain], data[keyNextKey], data[keyBundle])
	}
	if err != nil {
		return fmt.Errorf("next CA: %w", err)
	}
	return nil
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func value(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
