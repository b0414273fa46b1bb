// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/portforward"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// operatorPort forwards a port of one operator pod to this machine until the test ends.
func operatorPort(t *testing.T, port int) string {
	t.Helper()
	return podPort(t, &operatorPods(t)[0], port)
}

// podPort forwards a port of a pod to this machine until the test ends.
func podPort(t *testing.T, pod *corev1.Pod, port int) string {
	t.Helper()
	return forward(t.Context(), t, pod, port)
}

// forward does so until a context ends.
func forward(ctx context.Context, t *testing.T, pod *corev1.Pod, port int) string {
	t.Helper()
	u := world.clientset.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource(
		"portforward").URL()
	dialer, err := portforward.NewSPDYOverWebsocketDialerForStreaming(u, world.config)
	require.NoError(t, err)
	ready := make(chan struct{})
	f, err := portforward.NewOnAddressesForStreamingWithContext(
		ctx, dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, ready, io.Discard, io.Discard)
	require.NoError(t, err)
	failed := make(chan error, 1)
	go func() { failed <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-failed:
		t.Fatal(err)
	}
	ports, err := f.GetPorts()
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local)
}

// operatorTLS verifies the operator as an agent does.
func operatorTLS(t *testing.T) *tls.Config {
	t.Helper()
	var bundle corev1.ConfigMap
	key := client.ObjectKey{Namespace: names.SystemNamespace, Name: names.TrustBundleConfigMap}
	require.NoError(t, world.client.Get(t.Context(), key, &bundle))
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(bundle.Data[names.TrustBundleKey])))
	return &tls.Config{
		RootCAs: roots, MinVersion: tls.VersionTLS13,
		ServerName: names.OperatorService + "." + names.SystemNamespace + ".svc",
	}
}

// token of a service account, bound to a pod; without audiences it is for the API server.
func token(t *testing.T, pod *corev1.Pod, audiences ...string) string {
	t.Helper()
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences:      audiences,
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	out, err := world.clientset.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(
		t.Context(), pod.Spec.ServiceAccountName, r, metav1.CreateOptions{})
	require.NoError(t, err)
	return out.Status.Token
}

// subscribe opens an xDS stream with a token and asks for all clusters.
func subscribe(t *testing.T, address, bearer string) error {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(operatorTLS(t))))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if bearer != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+bearer)
	}
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeCluster, ResourceNamesSubscribe: []string{
		"*",
	}}); err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func TestStreamsOfStrangersAreRefused(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.server("app")
	pod := s.pod("app")
	// It has all of a waypoint's but the Deployment: the label and the account.
	s.gateway("waypoint")
	eventually.NoError(t, "the waypoint's service account", func() error {
		return world.client.Get(t.Context(), client.ObjectKey{Namespace: s.name, Name: "waypoint"}, &corev1.ServiceAccount{})
	})
	s.server("thief", podLabel(names.LabelGatewayName, "waypoint"),
		spec(func(p *corev1.PodSpec) { p.ServiceAccountName = "waypoint" }))
	thief := s.pod("thief")
	for name, c := range map[string]struct {
		token string
		code  codes.Code
	}{
		"no token":                  {"", codes.Unauthenticated},
		"a made-up token":           {"ey.not.real", codes.Unauthenticated},
		"of another audience":       {token(t, &pod, "https://kubernetes.default.svc"), codes.Unauthenticated},
		"of an application, honest": {token(t, &pod, names.TokenAudience), codes.PermissionDenied},
		"of a waypoint's double":    {token(t, &thief, names.TokenAudience), codes.PermissionDenied},
	} {
		err := subscribe(t, operatorPort(t, names.PortXDS), c.token)
		require.Equal(t, c.code, status.Code(err), "%s: %v", name, err)
	}
}

// nodePods are the node pods, by node.
func nodePods(t *testing.T) map[string]*corev1.Pod {
	t.Helper()
	pods, err := component(lasting(t), names.SystemNamespace, names.ComponentNode)
	require.NoError(t, err)
	out := map[string]*corev1.Pod{}
	for i := range pods {
		out[pods[i].Spec.NodeName] = &pods[i]
	}
	return out
}

func TestACertificateForAPodOfAnotherNodeIsRefused(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.server("app")
	s.captured("app")
	pod, id := s.pod("app"), identityOf(s, "app")
	config := operatorTLS(t)
	proxies := nodePods(t)
	others := 0
	for node, proxy := range proxies {
		code, body := sign(t, config, token(t, proxy, names.TokenAudience), id)
		if node == pod.Spec.NodeName {
			require.Equal(t, http.StatusOK, code, body)
			continue
		}
		others++
		require.Equal(t, http.StatusForbidden, code, body)
		require.Contains(t, body, s.name+"/app", "the refusal says what was asked for")
	}
	require.Positive(t, others, "the cluster has one node only")
	// The pod's own token gets nothing either: only agents ask.
	code, body := sign(t, config, token(t, &pod, names.TokenAudience), id)
	require.Equal(t, http.StatusForbidden, code, body)
}

func sign(t *testing.T, config *tls.Config, bearer, id string) (int, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return signFor(t, config, bearer, id, key)
}

// signFor asks through a forward of its own: client-go ends one when a connection through it is closed the hard way.
func signFor(t *testing.T, config *tls.Config, bearer, id string, key *ecdsa.PrivateKey) (int, string) {
	t.Helper()
	address := operatorPort(t, names.PortCertificates)
	uri, err := url.Parse(id)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{uri}}, key)
	require.NoError(t, err)
	body, err := json.Marshal(identity.SignRequest{
		Identity: id, CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
	})
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+address+identity.PathSign,
		bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	require.NoError(t, err)
	return res.StatusCode, string(answer)
}
