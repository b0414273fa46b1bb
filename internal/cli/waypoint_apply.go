// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// fieldManager of what the commands apply.
	fieldManager = "fairway-cli"
	// defaultWaypoint is the name of a waypoint of one's own, as the documents have it.
	defaultWaypoint = "waypoint"
	// waypointListener is the name of its listener.
	waypointListener = "mesh"
)

// applyOptions are the flags of waypoint apply.
type applyOptions struct {
	conn    *connection
	name    string
	format  string
	dryRun  bool
	wait    bool
	timeout time.Duration
	step    time.Duration
}

func waypointApplyCommand(conn *connection) *cobra.Command {
	o := applyOptions{conn: conn, step: time.Second}
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make a waypoint of one's own for a namespace",
		Long: `Make a waypoint for the namespace, a Gateway of class fairway-waypoint, or leave it as it is. Nothing goes through it
until label fairway.dev/use-waypoint of the namespace or of a Service names it: how is said at the end. Where routes are
all that a waypoint is for, none need be made: an automatic one appears.

With -o yaml the manifest is printed; with --dry-run nothing is made, but the API server says whether it would be.

Exit code: 0 if the waypoint is there, and with --wait serves; 1 if not; 2 if the command line is wrong.`,
		Example: `  fairway waypoint apply -n bookshop --wait

  # the manifest alone
  fairway waypoint apply -n bookshop --name edge --dry-run -o yaml`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	f := cmd.Flags()
	f.StringVar(&o.name, "name", defaultWaypoint, "name of the Gateway")
	f.StringVarP(&o.format, "output", "o", "", "yaml: print the manifest")
	f.BoolVar(&o.dryRun, "dry-run", false, "make nothing, but have the API server check it")
	f.BoolVar(&o.wait, "wait", false, "wait until the waypoint serves")
	timeoutFlag(f, &o.timeout, defaultWait, "give up waiting after this time")
	return cmd
}

// waypointManifest is a waypoint with defaults.
func waypointManifest(key types.NamespacedName) *gwv1.Gateway {
	return &gwv1.Gateway{
		TypeMeta:   metav1.TypeMeta{APIVersion: gwv1.GroupVersion.String(), Kind: "Gateway"},
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec: gwv1.GatewaySpec{
			GatewayClassName: names.WaypointClass,
			Listeners:        []gwv1.Listener{{Name: waypointListener, Port: names.PortMTLS, Protocol: names.ProtocolMTLS}},
		},
	}
}

func (o *applyOptions) run(cmd *cobra.Command) error {
	if o.format != "" && o.format != "yaml" {
		return usagef("-o %s: unknown format, use yaml", o.format)
	}
	if wrong := validation.IsDNS1035Label(o.name); len(wrong) > 0 {
		return usagef("--name %s: %s", o.name, strings.Join(wrong, "; "))
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	c, err := o.conn.connect(ctx)
	if err != nil {
		return err
	}
	key := types.NamespacedName{Namespace: c.namespace, Name: o.name}
	there, err := mayHaveWaypoint(ctx, c, key)
	if err != nil {
		return err
	}
	manifest, err := runtimeless(waypointManifest(key))
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(manifest.Object)
	if err != nil {
		return err
	}
	if !there {
		if err := o.apply(ctx, c.client, key, manifest); err != nil {
			return err
		}
	}
	out, notes := &table{out: cmd.OutOrStdout()}, &table{out: cmd.ErrOrStderr()}
	if o.format == "yaml" {
		out.text(strings.TrimSuffix(string(text), "\n"))
		out = notes // programs read the manifest alone
	}
	switch {
	case there:
		out.line("Gateway %s is a waypoint already, and is left as it is", key)
	case o.dryRun:
		out.line("Gateway %s would be applied (dry run)", key)
	default:
		out.line("Gateway %s is applied", key)
	}
	if o.dryRun {
		return out.err
	}
	if o.wait {
		if err := o.serves(ctx, c, key, notes); err != nil {
			return err
		}
		out.line("it serves")
	}
	out.line("Nothing goes through it until a label says so, for all Services of the namespace, or for one:")
	out.line("  kubectl label namespace %s %s=%s", key.Namespace, names.LabelUseWaypoint, key.Name)
	out.line("  kubectl label service -n %s SERVICE %s=%s", key.Namespace, names.LabelUseWaypoint, key.Name)
	return out.err
}

func (o *applyOptions) apply(
	ctx context.Context, c client.Client, key types.NamespacedName, manifest *unstructured.Unstructured,
) error {
	// Fields that others have set, as parameters, stay theirs.
	options := []client.ApplyOption{client.FieldOwner(fieldManager)}
	if o.dryRun {
		options = append(options, client.DryRunAll)
	}
	switch err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(manifest), options...); {
	case apierrors.IsConflict(err):
		return fmt.Errorf("waypoint %s can't be applied: its listener %s is another's; choose another --name", key,
			waypointListener)
	case err != nil:
		return fmt.Errorf("waypoint %s can't be applied: %s", key, plainly(err))
	}
	return nil
}

// runtimeless is a manifest without what an API server adds, as status and times.
func runtimeless(g *gwv1.Gateway) (*unstructured.Unstructured, error) {
	data, err := yaml.Marshal(g)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(data, &u.Object); err != nil {
		return nil, err
	}
	unstructured.RemoveNestedField(u.Object, "status")
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	return u, nil
}

// mayHaveWaypoint refuses what would be of no use, or take something from somebody. It tells whether the waypoint is
// there: how whoever has made it has written it, is theirs.
func mayHaveWaypoint(ctx context.Context, c *cluster, key types.NamespacedName) (there bool, err error) {
	n := &corev1.Namespace{}
	switch err := c.client.Get(ctx, types.NamespacedName{Name: key.Namespace}, n); {
	case apierrors.IsNotFound(err):
		return false, fmt.Errorf("there is no namespace %s", key.Namespace)
	case apierrors.IsForbidden(err): // the Gateway's condition will say so
	case err != nil:
		return false, fmt.Errorf("namespace %s can't be read: %s", key.Namespace, plainly(err))
	case !member.Enrolled(n):
		return false, fmt.Errorf("namespace %s is not in the mesh, so a waypoint there would get no identity: label it "+
			"%s=%s first",
			key.Namespace, names.LabelMesh, names.MeshEnabled)
	}
	g := &gwv1.Gateway{}
	switch err := c.client.Get(ctx, key, g); {
	case meta.IsNoMatchError(err):
		return false, errors.New("the kinds of the Gateway API are not installed: install its CRDs (see " + docsNeeds + ")")
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err): // applying it will say whether one may
	case err != nil:
		return false, fmt.Errorf("waypoint %s can't be read: %s", key, plainly(err))
	case g.Spec.GatewayClassName != names.WaypointClass:
		return false, fmt.Errorf("a Gateway %s is there, of class %s: choose another --name", key, g.Spec.GatewayClassName)
	case g.DeletionTimestamp != nil:
		return false, fmt.Errorf("waypoint %s is being deleted%s: wait until it is gone, or choose another --name", key,
			keptBy(g.Finalizers))
	case g.Labels[names.LabelAutomatic] != "":
		return false, fmt.Errorf("waypoint %s is the automatic one, which the operator makes and removes: choose another "+
			"--name",
			key)
	}
	return slices.ContainsFunc(g.Spec.Listeners, func(l gwv1.Listener) bool {
		return l.Protocol == names.ProtocolMTLS
	}), nil
}

// keptBy says what keeps an object that is being deleted; "" if nothing does.
func keptBy(finalizers []string) string {
	if len(finalizers) == 0 {
		return ""
	}
	return ", and there while its finalizers are (" + strings.Join(finalizers, ", ") + ")"
}

// serves waits until a waypoint does.
func (o *applyOptions) serves(ctx context.Context, c *cluster, key types.NamespacedName, notes *table) error {
	t := time.NewTicker(o.step)
	defer t.Stop()
	said := ""
	for {
		g := &gwv1.Gateway{}
		var why string
		if err := c.client.Get(ctx, key, g); err != nil {
			why = plainly(err)
		} else {
			programmed := meta.FindStatusCondition(g.Status.Conditions, string(gwv1.GatewayConditionProgrammed))
			if programmed != nil && programmed.Status == metav1.ConditionTrue && programmed.ObservedGeneration >= g.Generation {
				return nil
			}
			why = whyNotProgrammed(g)
		}
		if why = oneLine(why); why != said && ctx.Err() == nil {
			said = why
			notes.line("waiting: %s", why)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("the waypoint does not serve yet: %s (see %s)", said, waypointDown.docs())
		}
	}
}
