// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package spire

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	delegatedidentityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/delegatedidentity/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Delegate asks for identities of the node's pods. SPIRE's agent believes what a delegate says of them, and gives what
// its server has registered for this node.
type Delegate struct {
	socket, trustDomain, node string
	conn                      *grpc.ClientConn
	api                       delegatedidentityv1.DelegatedIdentityClient
}

// NewDelegate makes a client of the agent's admin socket on a node. It does not connect yet.
func NewDelegate(socket, trustDomain, node string) (*Delegate, error) {
	conn, err := grpc.NewClient("unix:"+socket,
		append(dialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return nil, fmt.Errorf("admin socket of the SPIRE agent %q: %w", socket, err)
	}
	return &Delegate{
		socket: socket, trustDomain: trustDomain, node: node, conn: conn,
		api: delegatedidentityv1.NewDelegatedIdentityClient(conn),
	}, nil
}

// Close ends the connection.
func (d *Delegate) Close() error { return d.conn.Close() }

func (d *Delegate) explain(err error) error {
	return explain(err, d.socket, fmt.Sprintf("it needs %s in authorized_delegates, and SPIRE a registration entry with "+
		"that SPIFFE ID for service account %s/%s",
		names.SPIFFEID(d.trustDomain, names.SystemNamespace, names.NodeServiceAccount),
		names.SystemNamespace, names.NodeServiceAccount))
}

// selectors are what is known to be true of the pods of an identity on this node. An entry matches if all that it asks
// for is among them: entries for a service account do, and those that SPIRE's controller manager makes, which are for
// pods by their UIDs.
func (d *Delegate) selectors(id string, pods []identity.Pod) ([]*types.Selector, error) {
	_, namespace, account, ok := names.ParseSPIFFEID(id)
	if !ok {
		return nil, fmt.Errorf("%.300q is no identity of a service account", id)
	}
	var out []*types.Selector
	add := func(what, value string) {
		out = append(out, &types.Selector{Type: "k8s", Value: what + ":" + value})
	}
	add("ns", namespace)
	add("sa", account)
	if d.node != "" {
		add("node-name", d.node)
	}
	for _, p := range pods {
		add("pod-uid", p.UID)
		add("pod-name", p.Name)
	}
	return out, nil
}

// Follow tells what SPIRE gives for an identity of the pods, and why it doesn't, until the context ends.
func (d *Delegate) Follow(ctx context.Context, id string, pods []identity.Pod, tell func(identity.SVID, error)) {
	selectors, err := d.selectors(id, pods)
	if err != nil {
		tell(identity.SVID{}, err)
		<-ctx.Done()
		return
	}
	repeat(ctx, func(ctx context.Context, progress func()) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		// An agent that has an entry and can't have it signed says nothing at all.
		late := time.AfterFunc(patience, func() { cancel(errLate) })
		defer late.Stop()
		stream, err := d.api.SubscribeToX509SVIDs(ctx,
			&delegatedidentityv1.SubscribeToX509SVIDsRequest{Selectors: selectors})
		for err == nil {
			var answer *delegatedidentityv1.SubscribeToX509SVIDsResponse
			if answer, err = stream.Recv(); err == nil {
				late.Stop()
				progress()
				tell(read(id, answer))
			}
		}
		if errors.Is(context.Cause(ctx), errLate) {
			return errLate
		}
		return d.explain(err)
	}, func(err error) { tell(identity.SVID{}, err) })
}

// errLate: nothing came of a subscription.
var errLate = fmt.Errorf("SPIRE's agent has answered nothing for %s: it may not reach its server", patience)

func read(id string, answer *delegatedidentityv1.SubscribeToX509SVIDsResponse) (identity.SVID, error) {
	var given []*x509svid.SVID
	var bad error
	for _, s := range answer.GetX509Svids() {
		svid, err := x509svid.ParseRaw(bytes.Join(s.GetX509Svid().GetCertChain(), nil), s.GetX509SvidKey())
		if err != nil {
			bad = fmt.Errorf("what SPIRE gives isn't used: %w", err) // of the certificate or of the form of the key
			continue
		}
		given = append(given, svid)
	}
	if len(given) == 0 && bad != nil {
		return identity.SVID{}, bad
	}
	return pick(id, given)
}

// FollowBundle tells the roots of the trust domain, and why there are none, until the context ends. Those of trust
// domains that SPIRE federates with are left out: nobody of these is anybody in the mesh.
func (d *Delegate) FollowBundle(ctx context.Context, tell func([]*x509.Certificate, error)) {
	repeat(ctx, func(ctx context.Context, progress func()) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := d.api.SubscribeToX509Bundles(ctx, &delegatedidentityv1.SubscribeToX509BundlesRequest{})
		if err != nil {
			return d.explain(err)
		}
		for {
			answer, err := stream.Recv()
			if err != nil {
				return d.explain(err)
			}
			progress()
			der, ok := answer.GetCaCertificates()["spiffe://"+d.trustDomain]
			if !ok {
				tell(nil, fmt.Errorf("SPIRE's agent is of another trust domain than the Mesh's, %s", d.trustDomain))
				continue
			}
			tell(own(der))
		}
	}, func(err error) { tell(nil, err) })
}
