// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"os"
	"path"
	"sync"
	"time"

	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/spire"
)

// spired has this replica's own identity come of SPIRE while the Mesh says so.
type spired struct {
	issuance  *issuance
	namespace string
	// dir is where the socket of the Workload API is mounted.
	dir string

	mu   sync.Mutex
	asks spireAsks
	own  *spire.Own
	stop context.CancelFunc
}

// spireAsks is what a Mesh asks for; its zero value is another source.
type spireAsks struct{ socket, trustDomain string }

// followSPIRE makes each replica, leader or not, do as the Mesh says.
func followSPIRE(ctx context.Context, mgr ctrl.Manager, s *spired) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("spire").
		For(&v1alpha1.Mesh{}).
		WithOptions(controller.Options{NeedLeaderElection: ptr.To(false)}).
		Complete(reconcile.Func(func(rctx context.Context, req ctrl.Request) (ctrl.Result, error) {
			mesh := &v1alpha1.Mesh{}
			if err := mgr.GetClient().Get(rctx, req.NamespacedName, mesh); err != nil {
				// Without a Mesh, what was in use goes on: agents that let pods go need the operator.
				return ctrl.Result{}, client.IgnoreNotFound(err)
			}
			return ctrl.Result{}, s.set(ctx, mesh)
		}))
}

// set follows SPIRE, or doesn't, as a Mesh says.
func (s *spired) set(ctx context.Context, mesh *v1alpha1.Mesh) error {
	var asks spireAsks
	if spec := mesh.Spec.SPIRE().DeepCopy(); spec != nil {
		spec.SetDefaults()
		asks = spireAsks{path.Join(s.dir, spec.WorkloadSocket), mesh.Spec.TrustDomain}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if asks == s.asks {
		return nil
	}
	if asks == (spireAsks{}) {
		s.end()
		s.issuance.authority.UseOutside(nil)
		return nil
	}
	from, err := spire.NewWorkload(ctx, asks.socket, asks.trustDomain)
	if err != nil {
		return err
	}
	s.end()
	id := names.SPIFFEID(asks.trustDomain, s.namespace, names.OperatorServiceAccount)
	own := spire.NewOwn(from, asks.trustDomain, id, s.issuance.notify, func(held identity.Held, err error) {
		s.tell(id, held, err)
	})
	ctx, stop := context.WithCancel(ctx)
	s.asks, s.own, s.stop = asks, own, stop
	s.issuance.authority.UseOutside(own)
	go func() {
		own.Run(ctx)
		_ = from.Close() // nobody uses it any more
	}()
	return nil
}

// end leaves SPIRE; the lock is held.
func (s *spired) end() {
	if s.stop != nil {
		s.stop()
	}
	s.asks, s.own, s.stop = spireAsks{}, nil, nil
}

// tell lets people know when the operator's own identity isn't renewed.
func (s *spired) tell(id string, held identity.Held, err error) {
	if err == nil {
		s.issuance.renewals.Renewed(identity.OwnHolder, id)
		return
	}
	s.issuance.renewals.Failed(identity.Failure{
		Holder: identity.OwnHolder, Identity: id, Held: held, Err: identity.Issuef(identity.IssueSPIRE, "%v", err),
	})
}

// status is how SPIRE serves the operator itself. What it gives to proxies, they tell.
func (s *spired) status(mesh *v1alpha1.Mesh) controllers.CertificatesStatus {
	s.mu.Lock()
	own := s.own
	s.mu.Unlock()
	id := names.SPIFFEID(mesh.Spec.TrustDomain, s.namespace, names.OperatorServiceAccount)
	out := controllers.CertificatesStatus{Reason: v1alpha1.MeshReasonPending, Message: "SPIRE's agent is being asked."}
	if own == nil {
		return out
	}
	cert, err := own.Certificate(id)
	switch {
	case err == nil:
		out.Ready, out.Signing, out.Reason = true, true, v1alpha1.MeshReasonIssued
		out.Message = fmt.Sprintf("SPIRE gives the identities of trust domain %s. The operator's own holds until %s.",
			mesh.Spec.TrustDomain, cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case s.unmounted():
		out.Reason = v1alpha1.MeshReasonSPIRENotReady
		out.Message = fmt.Sprintf("The operator has no volume of %s at %s: add component config/components/spire to its "+
			"installation.", names.SPIREDriver, s.dir)
	default:
		out.Reason = v1alpha1.MeshReasonSPIRENotReady
		out.Message = fmt.Sprintf("SPIRE gives the operator no identity: %v. It needs a registration entry with the "+
			"SPIFFE ID %s for service account %s/%s.", err, id, s.namespace, names.OperatorServiceAccount)
	}
	return out
}

func (s *spired) unmounted() bool {
	_, err := os.Stat(s.dir)
	return os.IsNotExist(err)
}
