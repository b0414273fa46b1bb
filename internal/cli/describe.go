// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/names"
)

// Kinds that describe takes.
const (
	describePod     = "pod"
	describeService = "service"
	describeRoute   = "route"
)

// described are the kinds by the words for them; a route's may say which one is meant.
var described = map[string]struct{ kind, only string }{
	"pod": {kind: describePod}, "pods": {kind: describePod}, "po": {kind: describePod},
	"service": {kind: describeService}, "services": {kind: describeService}, "svc": {kind: describeService},
	"route": {kind: describeRoute}, "routes": {kind: describeRoute},
	"httproute": {describeRoute, "HTTPRoute"}, "httproutes": {describeRoute, "HTTPRoute"},
	"grpcroute": {describeRoute, "GRPCRoute"}, "grpcroutes": {describeRoute, "GRPCRoute"},
}

// subject is what is described.
type subject struct {
	kind string
	// only is the kind of route that is meant; "": any.
	only string
	name types.NamespacedName
}

// describeOptions are the flags of describe.
type describeOptions struct {
	conn    connection
	output  outputFlag
	system  string
	timeout time.Duration
}

func describeCommand() *cobra.Command {
	var o describeOptions
	cmd := &cobra.Command{
		Use:   "describe KIND NAME",
		Short: "Show what the mesh makes of a pod, a Service or a route",
		Long: `Show what the mesh makes of an object, which kubectl doesn't show.

  pod      whether it is in the mesh, and why not; its identity and certificate, its node's proxy, the Services that
           lead to it, and who may connect
  service  how clients reach it: its waypoint, ports and protocols, the routes that attach and those that don't,
           policies, and which of its endpoints are in the mesh
  route    its parents with all conditions, the cause first; its backends, and what the waypoint's proxies have
           acknowledged of their configuration

KIND is pod, service, route, httproute or grpcroute. KIND/NAME does as well, and so does NAMESPACE/NAME for NAME.

It is worked out from the objects in the cluster as the operator does it. The rights of those who may view the namespace
are enough for much of it: what could not be asked is named at the end, and never said to be none.

Exit code: 0 if the object is there, 1 if not, or if it could not be asked for, 2 if the command line is wrong.`,
		Example: `  fairway describe pod -n bookshop shop-5d4f7c9b8-x2x7k

  fairway describe svc/reviews -n bookshop

  fairway describe route bookshop/reviews-split -o json`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) < 1 || len(given) > 2 {
				return usagef("%s: say what: KIND NAME, as in: pod bookshop/shop-5d4f7c9b8-x2x7k", cmd.CommandPath())
			}
			return nil
		},
		RunE: o.run,

		ValidArgsFunction: o.complete,
	}
	o.conn.add(cmd)
	o.conn.addNamespace(cmd)
	o.output.add(cmd)
	systemNamespaceFlag(cmd, &o.system)
	timeoutFlag(cmd.Flags(), &o.timeout, defaultTimeout, "give up after this time, and show what was found")
	return cmd
}

func (o *describeOptions) run(cmd *cobra.Command, given []string) error {
	if err := o.output.check(); err != nil {
		return err
	}
	s, err := subjectOf(given)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	c, err := o.conn.connect(ctx)
	if err != nil {
		return err
	}
	if s.name.Namespace == "" {
		s.name.Namespace = c.namespace
	}
	d, err := describe(ctx, c, o.system, s)
	if err != nil {
		return err
	}
	now := time.Now()
	return o.output.print(cmd.OutOrStdout(), d, func(t *table) { d.draw(t, now) })
}

// subjectOf reads KIND NAME, or KIND/NAME, where NAME may be NAMESPACE/NAME.
func subjectOf(given []string) (s subject, err error) {
	kind, name, ok := strings.Cut(given[0], "/")
	if len(given) == 2 {
		kind, name, ok = given[0], given[1], true
	}
	of, known := described[strings.ToLower(kind)]
	switch {
	case !known:
		return s, usagef("describe %s: want pod, service, route, httproute or grpcroute", kind)
	case !ok || name == "":
		return s, usagef("describe %s: say which one: %s NAME, or %s/NAME", kind, kind, kind)
	}
	s.kind, s.only, s.name.Name = of.kind, of.only, name
	if namespace, name, ok := strings.Cut(name, "/"); ok {
		s.name = types.NamespacedName{Namespace: namespace, Name: name}
	}
	if s.name.Name == "" || strings.Contains(s.name.Name, "/") {
		return s, usagef("describe %s %s: want NAME or NAMESPACE/NAME", kind, name)
	}
	if s.name.Namespace != "" {
		if err := badNamespace(s.name.Namespace); err != nil {
			return s, usagef("describe: %w", err)
		}
	}
	return s, nil
}

// description is what is known of an object.
type description interface {
	draw(t *table, now time.Time)
}

// beingDeleted is part of a description: what else it says may not hold for long.
type beingDeleted struct {
	// BeingDeletedSince somebody has asked for it; missing where nobody has.
	BeingDeletedSince *time.Time `json:"beingDeletedSince,omitempty"`
	// Finalizers that keep it.
	Finalizers []string `json:"finalizers,omitempty"`
}

func deletionOf(o client.Object) beingDeleted {
	at := o.GetDeletionTimestamp()
	if at == nil {
		return beingDeleted{}
	}
	since := at.Time // when its grace ends
	if grace := o.GetDeletionGracePeriodSeconds(); grace != nil {
		since = since.Add(-time.Duration(*grace) * time.Second)
	}
	return beingDeleted{BeingDeletedSince: &since, Finalizers: o.GetFinalizers()}
}

// fields are nil for what nobody deletes.
func (b beingDeleted) fields(now time.Time) [][]string {
	if b.BeingDeletedSince == nil {
		return nil
	}
	text := "since " + ago(*b.BeingDeletedSince, now)
	if len(b.Finalizers) > 0 {
		text += "; it is there while its finalizers are: " + strings.Join(b.Finalizers, ", ")
	}
	return [][]string{{"Being deleted", text}}
}

func describe(ctx context.Context, c *cluster, system string, s subject) (description, error) {
	k := lookAround(ctx, c, system, s.name.Namespace)
	if k.absent[whatMesh] {
		return nil, fmt.Errorf("fairway is not installed in this cluster: the kind Mesh does not exist (see %s)",
			notInstalled.docs())
	}
	switch s.kind {
	case describePod:
		return k.describePod(ctx, s.name)
	case describeService:
		return k.describeService(s.name)
	default:
		return k.describeRoute(ctx, s)
	}
}

// notThere says of an object that it doesn't exist, or could not be asked for.
func (k *collector) notThere(what string, kinds ...string) error {
	for _, kind := range kinds {
		if k.unread[kind] {
			return fmt.Errorf("%s can't be described: %s could not be asked for: %s", what, kind, k.whyUnread(kind))
		}
	}
	return fmt.Errorf("there is no %s (choose the namespace with -n)", what)
}

// meshAsked is what is said of the mesh for want of it.
func (k *collector) meshSays() string {
	switch {
	case k.meshUnknown:
		return "what the Mesh says could not be asked"
	case k.mesh == nil:
		return fmt.Sprintf("there is no Mesh %q, so nothing is in it", names.Mesh)
	}
	return ""
}

// drawCouldNotAsk ends a description.
func drawCouldNotAsk(t *table, all []string) {
	if len(all) == 0 {
		return
	}
	t.line("\nCould not ask:")
	for _, s := range all {
		t.line("  - %s", oneLine(s))
	}
}
