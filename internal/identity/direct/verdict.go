// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package direct

import (
	"strings"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/identity"
)

// maxSaid bounds what is repeated of an issuer's words.
const maxSaid = 400

// verdict is what has become of a request.
type verdict struct {
	// answer is set where the issuer signed, failure where it is certain that nobody will.
	answer  *identity.ExternalAnswer
	failure *identity.IssueError
	// pending says what is being waited for, else.
	pending string
}

// judge reads a request's conditions.
func judge(cr *certmanagerv1.CertificateRequest) verdict {
	if cr.DeletionTimestamp != nil {
		return failed(identity.IssueFailed, "somebody deleted the request before it was answered", "")
	}
	if c := trueCondition(cr, certmanagerv1.CertificateRequestConditionDenied); c != nil {
		return failed(identity.IssueDenied, "an approver of cert-manager denied the request", c.Message)
	}
	if c := trueCondition(cr, certmanagerv1.CertificateRequestConditionInvalidRequest); c != nil {
		return failed(identity.IssueFailed, "the issuer calls the request invalid", c.Message)
	}
	ready := condition(cr, certmanagerv1.CertificateRequestConditionReady)
	switch {
	case ready == nil:
	case ready.Status == cmmeta.ConditionTrue && len(cr.Status.Certificate) == 0:
		return failed(identity.IssueFailed, "the issuer says that it signed, but gives no certificate", "")
	case ready.Status == cmmeta.ConditionTrue:
		return verdict{answer: &identity.ExternalAnswer{Certificate: cr.Status.Certificate, CA: cr.Status.CA}}
	case ready.Reason == certmanagerv1.CertificateRequestReasonDenied:
		return failed(identity.IssueDenied, "an approver of cert-manager denied the request", ready.Message)
	case ready.Reason == certmanagerv1.CertificateRequestReasonFailed:
		return failed(identity.IssueFailed, "the issuer failed", ready.Message)
	}
	return verdict{pending: pending(cr, ready)}
}

// pending says what stands between a request and its answer.
func pending(cr *certmanagerv1.CertificateRequest, ready *certmanagerv1.CertificateRequestCondition) string {
	switch {
	case trueCondition(cr, certmanagerv1.CertificateRequestConditionApproved) == nil:
		return "nobody has approved the request; does cert-manager run, and may its own approver approve for this kind of " +
			"issuers, or does one of yours?"
	case ready != nil && ready.Message != "":
		return "cert-manager says: " + said(ready.Message)
	}
	return "nobody has taken the request up: does the controller of this kind of issuers run?"
}

func failed(reason identity.IssueReason, what, message string) verdict {
	if message != "" {
		what += ": " + said(message)
	}
	return verdict{failure: identity.Issuef(reason, "%s", what)}
}

// said is what an issuer said, as part of a sentence of ours.
func said(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxSaid {
		text = strings.ToValidUTF8(text[:maxSaid], "") + "…"
	}
	return strings.TrimSuffix(text, ".")
}

func condition(
	cr *certmanagerv1.CertificateRequest, kind certmanagerv1.CertificateRequestConditionType,
) *certmanagerv1.CertificateRequestCondition {
	for i := range cr.Status.Conditions {
		if cr.Status.Conditions[i].Type == kind {
			return &cr.Status.Conditions[i]
		}
	}
	return nil
}

func trueCondition(
	cr *certmanagerv1.CertificateRequest, kind certmanagerv1.CertificateRequestConditionType,
) *certmanagerv1.CertificateRequestCondition {
	if c := condition(cr, kind); c != nil && c.Status == cmmeta.ConditionTrue {
		return c
	}
	return nil
}
