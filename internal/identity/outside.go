// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import "crypto/tls"

// Outside gives the operator its identity whole, with its key, as it gives each proxy its own: nothing is signed here,
// and there is no State. spire.Own is one.
type Outside interface {
	TrustDomain() string
	// Certificate is that of an identity of the operator's, as it is now. It never waits.
	Certificate(id string) (*tls.Certificate, error)
	// Bundle is the trust bundle; empty while there is none.
	Bundle() Bundle
}

// UseOutside has identities come from outside of the mesh; nil for the State, as before.
func (a *Authority) UseOutside(o Outside) {
	if o == nil {
		a.outside.Store(nil)
		return
	}
	a.outside.Store(&o)
}

// from is where identities come from instead of the State; nil if they don't.
func (a *Authority) from() Outside {
	if o := a.outside.Load(); o != nil {
		return *o
	}
	return nil
}

// outsideReady is Ready where identities come from outside.
func (a *Authority) outsideReady(o Outside) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, own := range a.servings {
		if _, err := o.Certificate(own.id(o.TrustDomain())); err != nil {
			return err
		}
	}
	return nil
}
