// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// maxAnchors bounds the roots that an external issuer may have: room for a change of several. Bundles of public roots
// are larger: whoever has a certificate of any of those could be any identity.
const maxAnchors = 16

// External is a CA that signs each leaf itself and gives nobody its key. As part of a Signer it takes the place of
// chain, root and key.
type External struct {
	// Issuer is whom to ask.
	Issuer IssuerRef `json:"issuer"`
	// Anchors are what its certificates lead to, as an administrator says, sorted.
	Anchors []*x509.Certificate `json:"-"`
}

// IssuerRef names an issuer of cert-manager.
type IssuerRef struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Group string `json:"group"`
}

// String names the issuer for people.
func (r IssuerRef) String() string {
	return fmt.Sprintf("cert-manager %s.%s %q", r.Kind, r.Group, r.Name)
}

// ExternalIssuer has certificates signed by issuers outside of the operator.
type ExternalIssuer interface {
	// Issue returns what the issuer says; whoever calls must check it. Errors are IssueErrors.
	Issue(ctx context.Context, req ExternalRequest) (ExternalAnswer, error)
}

// ExternalRequest asks an issuer for one certificate.
type ExternalRequest struct {
	Issuer IssuerRef
	// Identity is the SPIFFE ID, for those who look at the request.
	Identity string
	// CSR is PEM.
	CSR      []byte
	Lifetime time.Duration
}

// ExternalAnswer is what an issuer said, in PEM.
type ExternalAnswer struct {
	// Certificate is a chain, leaf first.
	Certificate []byte
	// CA is what the issuer calls its CA. Not all say so, and some name an intermediate, so nothing rests on it.
	CA []byte
}

// IssueReason says why an issuer gave no certificate.
type IssueReason string

// Reasons. They are the reasons of the Mesh's conditions, too.
const (
	// IssueDenied: an approver refused the request.
	IssueDenied IssueReason = "IssuerDenied"
	// IssueFailed: the issuer refused the request, or tried and failed.
	IssueFailed IssueReason = "IssuerFailed"
	// IssueUnavailable: nobody answered in time.
	IssueUnavailable IssueReason = "IssuerUnavailable"
	// IssueRefused: what the issuer signed isn't what it was asked for.
	IssueRefused IssueReason = "CertificateRefused"
	// IssueSPIRE: SPIRE gives an identity not, or not the right one, or doesn't renew it.
	IssueSPIRE IssueReason = "SPIRENotReady"
	// IssueBusy: too much is asked of the issuer at this time; it says nothing of the issuer.
	IssueBusy IssueReason = "IssuerBusy"
)

// IssueError is a certificate that an issuer didn't give. Asking again later may help.
type IssueError struct {
	Reason  IssueReason
	Message string
}

// Error implements error.
func (e *IssueError) Error() string { return e.Message }

// Issuef makes an IssueError.
func Issuef(reason IssueReason, format string, args ...any) *IssueError {
	return &IssueError{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Origin is that of a Signer which asks the issuer for each certificate.
func (r IssuerRef) Origin() string { return r.String() + ", asked for each certificate" }

// NewExternal is a signer for an issuer whose certificates lead to the anchors of a PEM text. Anchors that have
// expired are left out.
func NewExternal(issuer IssuerRef, anchorsPEM []byte, now time.Time) (*Signer, error) {
	b, err := ParseBundle(anchorsPEM)
	if err != nil {
		return nil, err
	}
	anchors := slices.DeleteFunc(b.Roots, func(c *x509.Certificate) bool { return !now.Before(c.NotAfter) })
	slices.SortFunc(anchors, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	anchors = slices.CompactFunc(anchors, (*x509.Certificate).Equal)
	switch {
	case len(anchors) == 0:
		return nil, fmt.Errorf("all of its certificates have expired")
	case len(anchors) > maxAnchors:
		return nil, fmt.Errorf("it has %d certificates, more than the limit of %d: name the roots of the issuer and no "+
			"others, because whoever has a certificate of any of them could be any identity of the mesh",
			len(anchors), maxAnchors)
	}
	return &Signer{
		Origin:   issuer.Origin(),
		External: &External{Issuer: issuer, Anchors: anchors},
	}, nil
}

func (e *External) same(o *External) bool {
	if e == nil || o == nil {
		return e == o
	}
	return e.Issuer == o.Issuer && slices.EqualFunc(e.Anchors, o.Anchors, (*x509.Certificate).Equal)
}

// notAfter is when the last anchor expires.
func (e *External) notAfter() time.Time {
	var last time.Time
	for _, c := range e.Anchors {
		if c.NotAfter.After(last) {
			last = c.NotAfter
		}
	}
	return last
}

// usable tells whether some anchor is valid at a time.
func (e *External) usable(at time.Time) bool {
	return slices.ContainsFunc(e.Anchors, func(c *x509.Certificate) bool {
		return !at.Before(c.NotBefore) && at.Before(c.NotAfter)
	})
}
