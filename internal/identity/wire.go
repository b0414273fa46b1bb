// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import "time"

// The HTTPS interface between agents and operator, on port names.PortCertificates. Every request but PathTrustBundle
// carries "Authorization: Bearer <projected token>"; bodies are JSON.
const (
	// PathSign takes a SignRequest (POST) and answers a SignResponse.
	PathSign = "/v1/sign"
	// PathTrustBundle answers the bundle as PEM (GET). It is public; ETag and If-None-Match save the transfer.
	PathTrustBundle = "/v1/trust-bundle"
	// PathFailing takes a FailingRequest (POST) where identities aren't signed by the operator. It answers nothing.
	PathFailing = "/v1/failing"
)

const (
	// MaxReported bounds a FailingRequest, as the memory of Renewals does.
	MaxReported = maxFailingOfOne
	// MaxReason bounds the reason of each.
	MaxReason = 400
)

// FailingRequest tells all identities that a caller can't have, or can't have renewed, now.
type FailingRequest struct {
	Failing []Failing `json:"failing"`
}

// Failing is one of them.
type Failing struct {
	Identity string `json:"identity"`
	Held
	Reason string `json:"reason"`
}

// SignRequest asks for a certificate.
type SignRequest struct {
	// CSR is a PEM certificate request as NewCSR makes it.
	CSR string `json:"csr"`
	// Identity is the SPIFFE ID.
	Identity string `json:"identity"`
	Held
}

// Held is what a caller has of an identity when it asks for a certificate: a failure is told with how long that holds.
type Held struct {
	// NotAfter is the end of the certificate in use; zero for none.
	NotAfter time.Time `json:"heldUntil,omitzero"`
	// FailingSince is since when the caller asks in vain; zero if it doesn't.
	FailingSince time.Time `json:"failingSince,omitzero"`
}

// SignResponse holds a certificate.
type SignResponse struct {
	// CertificateChain is PEM, leaf first, without root.
	CertificateChain string `json:"certificateChain"`
	// TrustBundle is PEM with its generation (ParseBundle).
	TrustBundle string `json:"trustBundle"`
	// NotAfter is the end of the leaf's life.
	NotAfter time.Time `json:"notAfter"`
}

// ErrorResponse is the body of every answer with a status of 400 or more.
type ErrorResponse struct {
	Error string `json:"error"`
}
