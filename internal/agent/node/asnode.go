// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// fieldNode selects the pods of a node; without it the API server lets a node read none.
const fieldNode = "spec.nodeName"

// asNode makes a client read pods and Nodes as the node that it runs on: an agent may do that for its own node and for
// this alone (constrained impersonation, Kubernetes 1.36), and the API server shows a node its own pods and itself.
// RBAC knows no such right. On an older cluster it falls back to what the agent itself may read, for which an
// administrator has to give it the pods of all nodes (config/agents-before-1.36).
func asNode(cfg *rest.Config, node string, log logr.Logger) *rest.Config {
	out := rest.CopyConfig(cfg)
	out.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &nodeReader{next: next, user: "system:node:" + node, log: log}
	})
	return out
}

type nodeReader struct {
	next http.RoundTripper
	user string
	log  logr.Logger
	once sync.Once
}

// RoundTrip implements http.RoundTripper.
func (n *nodeReader) RoundTrip(req *http.Request) (*http.Response, error) {
	if !nodesOwn(req) {
		return n.next.RoundTrip(req)
	}
	as := req.Clone(req.Context())
	as.Header.Set(authenticationv1.ImpersonateUserHeader, n.user)
	res, err := n.next.RoundTrip(as)
	if err != nil || res.StatusCode != http.StatusForbidden {
		return res, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<16)) // so that the connection can be used again
	_ = res.Body.Close()
	res, err = n.next.RoundTrip(req)
	if err == nil {
		n.once.Do(func() { n.tell(res.StatusCode) })
	}
	return res, err
}

func (n *nodeReader) tell(status int) {
	if status == http.StatusForbidden {
		n.log.Info("the agent may read neither the pods of its node nor the Node: that requires Kubernetes 1.36 with the "+
			"node authorizer, or the permissions in config/agents-before-1.36", "as", n.user)
		return
	}
	n.log.Info("the API server doesn't let the agent act as its node, so it reads by permissions for the pods of all "+
		"nodes", "as", n.user)
}

// nodesOwn tells whether a request reads what the API server shows a node. A GET has no body, so it can be sent again.
func nodesOwn(req *http.Request) bool {
	if req.Method != http.MethodGet {
		return false
	}
	rest, ok := strings.CutPrefix(req.URL.Path, "/api/v1/")
	if !ok {
		return false
	}
	inAny, _ := path.Match("pods", rest)
	inOne, _ := path.Match("namespaces/*/pods", rest)
	node, _ := path.Match("nodes/*", rest)
	return inAny || inOne || node
}

// readPod reads a pod of the node past any cache, or says that there is none. It is a list, since a node may list its
// pods by what the request itself says, but get one only once the API server has noticed that it is there.
func readPod(ctx context.Context, live client.Reader, key types.NamespacedName, node string) (*corev1.Pod, error) {
	list := &corev1.PodList{}
	err := live.List(ctx, list, client.InNamespace(key.Namespace),
		client.MatchingFields{"metadata.name": key.Name, fieldNode: node})
	if err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), key.Name)
	}
	return &list.Items[0], nil
}
