// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package direct

import (
	"strings"
	"testing"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/identity"
)

func TestJudge(t *testing.T) {
	type cond = certmanagerv1.CertificateRequestCondition
	const yes, no = cmmeta.ConditionTrue, cmmeta.ConditionFalse
	denied := certmanagerv1.CertificateRequestConditionDenied
	invalid := certmanagerv1.CertificateRequestConditionInvalidRequest
	is := func(
		kind certmanagerv1.CertificateRequestConditionType, status cmmeta.ConditionStatus, reason, message string,
	) cond {
		return cond{Type: kind, Status: status, Reason: reason, Message: message}
	}
	approved := is(certmanagerv1.CertificateRequestConditionApproved, yes, "x", "ok")
	ready := func(reason, message string) cond {
		return is(certmanagerv1.CertificateRequestConditionReady, no, reason, message)
	}
	signed := is(certmanagerv1.CertificateRequestConditionReady, yes, "Issued", "")
	for name, tc := range map[string]struct {
		conditions  []cond
		certificate string
		deleted     bool
		reason      identity.IssueReason // of a failure
		text        string
	}{
		"new":      {text: "nobody has approved"},
		"approved": {conditions: []cond{approved}, text: "nobody has taken the request up"},
		"pending": {
			conditions: []cond{approved, ready("Pending", "issuer corp\n not found.")},
			text:       "cert-manager says: issuer corp not found",
		},
		"pending, not approved": {conditions: []cond{ready("Pending", "x")}, text: "nobody has approved"},
		"denied": {
			conditions: []cond{is(denied, yes, "p", "no such pods")},
			reason:     identity.IssueDenied, text: "no such pods",
		},
		"denied, by Ready": {conditions: []cond{ready("Denied", "no")}, reason: identity.IssueDenied, text: "no"},
		"denied and signed": {
			conditions:  []cond{is(denied, yes, "p", ""), signed},
			certificate: "C", reason: identity.IssueDenied, text: "denied",
		},
		"failed": {
			conditions: []cond{approved, ready("Failed", "vault: 403")},
			reason:     identity.IssueFailed, text: "the issuer failed: vault: 403",
		},
		"invalid": {
			conditions: []cond{approved, is(invalid, yes, "x", "bad CSR")},
			reason:     identity.IssueFailed, text: "bad CSR",
		},
		"signed": {conditions: []cond{approved, signed}, certificate: "C"},
		"signed, but nothing": {
			conditions: []cond{approved, signed},
			reason:     identity.IssueFailed, text: "gives no certificate",
		},
		"certificate, not signed": {conditions: []cond{approved}, certificate: "C", text: "nobody has taken"},
		"deleted": {
			conditions: []cond{approved, signed},
			deleted:    true, certificate: "C", reason: identity.IssueFailed, text: "deleted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cr := &certmanagerv1.CertificateRequest{Status: certmanagerv1.CertificateRequestStatus{
				Conditions: tc.conditions, Certificate: []byte(tc.certificate), CA: []byte("A"),
			}}
			if tc.deleted {
				cr.DeletionTimestamp = &metav1.Time{}
			}
			v := judge(cr)
			switch {
			case tc.reason != "":
				require.NotNil(t, v.failure)
				require.Equal(t, tc.reason, v.failure.Reason)
				require.Contains(t, v.failure.Message, tc.text)
				require.Nil(t, v.answer)
			case tc.text != "":
				require.Nil(t, v.failure)
				require.Nil(t, v.answer)
				require.Contains(t, v.pending, tc.text)
			default:
				require.Equal(t, &identity.ExternalAnswer{Certificate: []byte("C"), CA: []byte("A")}, v.answer)
			}
		})
	}
	require.Less(t, len(said(strings.Repeat("ü", 10_000))), maxSaid+10)
}
