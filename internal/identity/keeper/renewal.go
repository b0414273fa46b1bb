// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"fmt"
	"strings"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/identity"
)

// renewalOverdue is how long cert-manager may take for a renewal before that is told.
const renewalOverdue = 10 * time.Minute

// renewal says why cert-manager does not renew the CA that it issued; nil while nothing is wrong. The CA in use is good
// all the same, and so is what it signed.
func renewal(cert *certmanagerv1.Certificate, signer *identity.Signer, now time.Time) *problem {
	due, failed := cert.Status.RenewalTime, cert.Status.LastFailureTime
	overdue := due != nil && now.Sub(due.Time) > renewalOverdue
	if failed == nil && !overdue {
		return nil
	}
	reason, what := v1alpha1.MeshReasonIssuerFailed, "nothing has come of it"
	if failed == nil {
		reason = v1alpha1.MeshReasonIssuerUnavailable
	}
	for _, c := range cert.Status.Conditions {
		if c.Type != certmanagerv1.CertificateConditionIssuing {
			continue
		}
		if c.Reason == certmanagerv1.CertificateRequestReasonDenied {
			reason = v1alpha1.MeshReasonIssuerDenied
		}
		if c.Message != "" && (failed == nil || c.Status != cmmeta.ConditionTrue) {
			what = "cert-manager says " + strings.TrimSuffix(c.Message, ".")
		}
	}
	since := failed
	if overdue {
		since = due
	}
	return &problem{reason, fmt.Sprintf("The CA is not renewed since %s: %s. It and every identity that it signs hold "+
		"until %s; after that nothing of the mesh can connect. See the Certificate: kubectl -n %s describe certificate %s.",
		since.UTC().Format(time.RFC3339), what, identity.Until(signer.NotAfter(), now), cert.Namespace, cert.Name)}
}
