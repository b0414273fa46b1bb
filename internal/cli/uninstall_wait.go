// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// remover deletes the Mesh and follows what becomes of it and of its node proxies.
type remover struct {
	client client.Client
	system string
	// step is the time between two looks.
	step  time.Duration
	notes io.Writer
	said  string
}

// leftover is what one look has found.
type leftover struct {
	// mesh is nil once it is gone.
	mesh *v1alpha1.Mesh
	// daemonSet tells whether it is there, with so many node proxies.
	daemonSet bool
	nodes     int32
}

// run ends without an error once neither the Mesh nor the DaemonSet is there.
func (u *remover) run(ctx context.Context, p *removal) error {
	var uid types.UID
	if p.mesh != nil {
		uid = p.mesh.UID
		if err := u.delete(ctx, p.mesh); err != nil {
			return err
		}
	}
	t := time.NewTicker(u.step)
	defer t.Stop()
	// What was planned, until there was a look.
	left := &leftover{mesh: p.mesh, daemonSet: p.daemonSet, nodes: p.nodes}
	for {
		now, err := u.look(ctx)
		if err == nil {
			left = now
		}
		switch {
		case err != nil && ctx.Err() == nil:
			u.say("waiting: %s", plainly(err))
		case err != nil: // the time is up, which is said below
		case left.mesh != nil && left.mesh.UID != uid:
			return restored(p)
		case left.mesh != nil:
			u.say("waiting for Mesh %s: %s", left.mesh.Name, kept(left.mesh))
		case left.daemonSet && p.operators == 0:
			return errors.New("the Mesh is gone, but no operator runs that could let the pods go in order: the node proxies " +
				"go once the operator's Deployment is deleted, and cut connections under way; see " + docsUninstall)
		case left.daemonSet:
			u.say("waiting for DaemonSet %s: %d node proxies are left", daemonSetName(u.system), left.nodes)
		default:
			if p.daemonSet {
				u.say("DaemonSet %s is gone: no pod is captured any more", daemonSetName(u.system))
			}
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return u.unfinished(ctx, left)
		}
	}
}

// delete what was shown, and nothing that came afterwards.
func (u *remover) delete(ctx context.Context, m *v1alpha1.Mesh) error {
	err := u.client.Delete(ctx, m, client.Preconditions{UID: &m.UID})
	switch {
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
	case apierrors.IsConflict(err):
		return errors.New("another Mesh has come in the place of the one that was shown, and nothing was deleted: find out " +
			"what makes it")
	case apierrors.IsForbidden(err):
		return errors.New("you have no right to delete the Mesh: a cluster administrator has")
	case err != nil:
		return fmt.Errorf("the Mesh can't be deleted: %s", plainly(err))
	default:
		u.say("deleted Mesh %s", m.Name)
	}
	return nil
}

// look at the DaemonSet, and then at the Mesh, so that one that comes back is not missed once the DaemonSet is gone.
func (u *remover) look(ctx context.Context) (*leftover, error) {
	nodes, gone, err := nodeProxies(ctx, u.client, u.system)
	if err != nil {
		return nil, err
	}
	out := &leftover{daemonSet: !gone, nodes: nodes}
	m := &v1alpha1.Mesh{}
	switch err := u.client.Get(ctx, types.NamespacedName{Name: names.Mesh}, m); {
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
	case err != nil:
		return nil, err
	default:
		out.mesh = m
	}
	return out, nil
}

// restored says that there is another Mesh than the one that was deleted. To delete it as well would lead nowhere.
func restored(p *removal) error {
	by := "something has made a new one meanwhile: find out what (kubectl get mesh " + names.Mesh +
		" -o yaml --show-managed-fields names who has written it)"
	if p.by.restores != "" {
		by = p.by.restores + " has made a new one meanwhile"
	}
	return errors.New("the Mesh was deleted, but " + by + ", and remove it there first; the node proxies stay")
}

// kept says why a Mesh is there after it was deleted.
func kept(m *v1alpha1.Mesh) string {
	if len(m.Finalizers) == 0 {
		return "it is about to go"
	}
	return "it is there while its finalizers are: " + strings.Join(m.Finalizers, ", ")
}

// unfinished says what is left when nobody waits any longer.
func (u *remover) unfinished(ctx context.Context, left *leftover) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return errors.New("interrupted: the Mesh is deleted, and the operator goes on to let the pods go without this " +
			"command; run it again to wait on")
	case left.mesh != nil:
		return fmt.Errorf("the Mesh is deleted, but still there: %s; who has set these must take them away", kept(left.mesh))
	}
	return fmt.Errorf("the Mesh is deleted, but DaemonSet %s is still there: the operator deletes it once no pod is "+
		"captured, so look at the operator (kubectl logs -n %s deploy/%s) and at the DaemonSet's Events (kubectl describe "+
		"daemonset -n %s %s); run this command again to wait on",
		daemonSetName(u.system), u.system, names.OperatorDeployment, u.system, names.NodeDaemonSet)
}

func (u *remover) say(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != u.said {
		u.said = text
		_ = sayLine(u.notes, text)
	}
}
