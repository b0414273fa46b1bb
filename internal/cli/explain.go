// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/explain"
)

// explainOptions are the flags of explain.
type explainOptions struct {
	conn    connection
	output  outputFlag
	timeout time.Duration

	port    uint16
	method  string
	path    string
	headers []string
}

func explainCommand() *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain SOURCE DESTINATION",
		Short: "Say whether a caller may reach a Service or a pod, and which policy decides",
		Long: `Say what becomes of a connection, or of a request, from a caller to a Service or a pod: by which proxies it goes, what
each decides, and which rule of which object that comes of, in the order in which it happens. The answer is worked out
from the objects in the cluster as the operator does it; no proxy is asked, and nothing is sent.

The verdict is one of
  Allowed   the application gets it, within the limits that are told
  Denied    a policy refuses it
  Answered  the waypoint answers by itself (a redirect, 404, 500, 503), and no application hears of it
  Depends   somebody else decides, who is named: an authorization service, a token, an extension; or what isn't known

SOURCE is pod/NAMESPACE/NAME, sa/NAMESPACE/NAME (any pod of a ServiceAccount in the mesh), or outside.
DESTINATION is service/NAMESPACE/NAME or pod/NAMESPACE/NAME. "service/" and, of SOURCE, "pod/" may be left out, and so
may NAMESPACE, for that of -n.

Without --method or --path it is asked about a connection. It takes the right to list the kinds that the operator reads.

Exit code: 0 if the verdict is Allowed, 1 if it is another one, 2 if the command line is wrong.`,
		Example: `  # may shop read reviews?
  fairway explain sa/bookshop/shop bookshop/reviews --method GET --path /reviews/1

  # the same for a pod, at the address of another
  fairway explain bookshop/shop-5d9c pod/bookshop/reviews-7f4b --port 8080

  # and somebody without an identity
  fairway explain outside bookshop/reviews`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error { return o.run(cmd, given[0], given[1]) },

		ValidArgsFunction: o.complete,
	}
	o.conn.add(cmd)
	o.conn.addNamespace(cmd)
	o.output.add(cmd)
	f := cmd.Flags()
	f.Uint16Var(&o.port, "port", 0, "port of the Service (default: its first), or of the pod")
	f.StringVarP(&o.method, "method", "X", "", "HTTP method of a request")
	f.StringVar(&o.path, "path", "", "path of a request, with its query, as it is sent")
	f.StringArrayVarP(&o.headers, "header", "H", nil,
		"header of a request, NAME: VALUE (repeatable); values are never printed")
	timeoutFlag(f, &o.timeout, defaultTimeout, "give up after this time")
	return cmd
}

func (o *explainOptions) run(cmd *cobra.Command, source, destination string) error {
	if err := o.output.check(); err != nil {
		return err
	}
	request, err := o.request()
	if err != nil {
		return err
	}
	c, err := o.conn.connect(cmd.Context())
	if err != nil {
		return err
	}
	q, err := question(source, destination, c.namespace)
	if err != nil {
		return err
	}
	q.Port, q.Request = o.port, request
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	mesh, err := explain.Read(ctx, c.client)
	if err != nil {
		return err
	}
	answer, err := mesh.Ask(q)
	if err != nil {
		return err
	}
	answer.Caller += unlessThere(ctx, c.client, q.Account)
	if err := o.output.print(cmd.OutOrStdout(), answer, func(t *table) { drawAnswer(t, answer) }); err != nil {
		return err
	}
	if answer.Verdict != explain.Allowed {
		return errUnhealthy
	}
	return nil
}

// unlessThere says so of a ServiceAccount that does not exist: a name with a slip in it is no policy's source, and the
// answer would look as if a policy were at fault. Whoever may not ask isn't told.
func unlessThere(ctx context.Context, c client.Client, account types.NamespacedName) string {
	if account.Name == "" || !apierrors.IsNotFound(c.Get(ctx, account, &corev1.ServiceAccount{})) {
		return ""
	}
	return ", which does not exist"
}

// request is nil where none of its flags is given.
func (o *explainOptions) request() (*explain.Request, error) {
	if o.method == "" && o.path == "" && len(o.headers) == 0 {
		return nil, nil
	}
	out := &explain.Request{Method: http.MethodGet, Path: "/", Headers: http.Header{}}
	if o.method != "" {
		out.Method = o.method
	}
	if o.path != "" {
		u, err := url.ParseRequestURI(o.path)
		if err != nil {
			return nil, usagef("--path %q: %w", o.path, err)
		}
		out.Path = o.path // spelling decides, so it stays as it is
		if u.IsAbs() {
			out.Path, out.Host = u.RequestURI(), u.Host
		}
	}
	for _, h := range o.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			// What it is may be a secret, so it isn't repeated.
			return nil, usagef("--header: want NAME: VALUE, with a colon")
		}
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return nil, usagef("--header: %q is not the name of a header", name)
		case !httpguts.ValidHeaderFieldValue(value):
			return nil, usagef("--header %s: its value has control characters", name)
		case strings.EqualFold(name, "host"):
			out.Host = value
		default:
			out.Headers[name] = append(out.Headers[name], value)
		}
	}
	return out, nil
}

// question reads the two ends.
func question(source, destination, namespace string) (q explain.Question, err error) {
	kind, name, ok := reference(source, "pod", namespace)
	switch {
	case source == "outside":
	case !ok:
		return q, usagef("SOURCE %q: want pod/NAMESPACE/NAME, sa/NAMESPACE/NAME or outside", source)
	case kind == "pod":
		q.Pod = name
	case kind == "sa":
		q.Account = name
	default:
		return q, usagef("SOURCE %q: %q is neither pod nor sa", source, kind)
	}
	switch kind, name, ok = reference(destination, "service", namespace); {
	case !ok:
		return q, usagef("DESTINATION %q: want service/NAMESPACE/NAME or pod/NAMESPACE/NAME", destination)
	case kind == "service":
		q.Service = name
	case kind == "pod":
		q.Target = name
	default:
		return q, usagef("DESTINATION %q: %q is neither service nor pod", destination, kind)
	}
	return q, nil
}

// reference reads [KIND/][NAMESPACE/]NAME. Of two parts the first is the kind if there is one of that name.
func reference(text, kind, namespace string) (string, types.NamespacedName, bool) {
	parts := strings.Split(text, "/")
	for _, p := range parts {
		if p == "" {
			return "", types.NamespacedName{}, false
		}
	}
	isKind := parts[0] == "pod" || parts[0] == "sa" || parts[0] == "service"
	switch {
	case len(parts) == 1:
		return kind, types.NamespacedName{Namespace: namespace, Name: parts[0]}, true
	case len(parts) == 2 && isKind:
		return parts[0], types.NamespacedName{Namespace: namespace, Name: parts[1]}, true
	case len(parts) == 2:
		return kind, types.NamespacedName{Namespace: parts[0], Name: parts[1]}, true
	case len(parts) == 3:
		return parts[0], types.NamespacedName{Namespace: parts[1], Name: parts[2]}, true
	}
	return "", types.NamespacedName{}, false
}
