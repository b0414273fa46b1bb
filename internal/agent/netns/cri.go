// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrNoSandbox is what Netns says of a pod that has no network namespace of its own: it is not running yet or any more,
// or it uses the node's.
var ErrNoSandbox = errors.New("the container runtime has no running sandbox with a network namespace for the pod")

// How kubelet labels a pod's sandbox.
const (
	labelPodUID       = "io.kubernetes.pod.uid"
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"
)

const (
	// callTimeout bounds one call to the container runtime.
	callTimeout = 5 * time.Second
)

// Runtime is the container runtime of the node, asked over CRI. It is safe for concurrent use.
type Runtime struct {
	candidates []candidate

	mu     sync.Mutex
	chosen cri.RuntimeServiceClient // nil until one has answered
}

type candidate struct {
	socket string
	client cri.RuntimeServiceClient
}

// NewRuntime asks the runtime that listens on a Unix socket; of several, the first that answers, which stays the one.
// It connects when it is asked first, and again after the runtime was restarted.
func NewRuntime(sockets ...string) (*Runtime, error) {
	r := &Runtime{}
	for _, socket := range sockets {
		conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, fmt.Errorf("container runtime at %s: %w", socket, err)
		}
		r.candidates = append(r.candidates, candidate{socket, cri.NewRuntimeServiceClient(conn)})
	}
	return r, nil
}

// client is that of the node's runtime.
func (r *Runtime) client(ctx context.Context) (cri.RuntimeServiceClient, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.chosen != nil {
		return r.chosen, nil
	}
	var failed []error
	for _, c := range r.candidates {
		_, err := c.client.Version(ctx, &cri.VersionRequest{})
		if err == nil {
			r.chosen = c.client
			return r.chosen, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", c.socket, err))
	}
	return nil, fmt.Errorf("no container runtime answers; is its socket elsewhere on this node "+
		"(spec.node.host.runtimeSocket of the Mesh)? %w", errors.Join(failed...))
}

// Pod is a pod as kubelet tells the container runtime of it.
type Pod struct {
	Namespace, Name string
	// UIDs by which kubelet may know it, at least one.
	UIDs []string
}

func (p Pod) String() string { return p.Namespace + "/" + p.Name }

// Netns is the path of the pod's network namespace on the node, or ErrNoSandbox.
func (r *Runtime) Netns(ctx context.Context, pod Pod) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	list, err := client.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		LabelSelector: map[string]string{labelPodNamespace: pod.Namespace, labelPodName: pod.Name},
		State:         &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		return "", fmt.Errorf("list the sandboxes of pod %s: %w", pod, err)
	}
	sandboxes := slices.DeleteFunc(list.GetItems(), func(s *cri.PodSandbox) bool {
		return !slices.Contains(pod.UIDs, s.GetLabels()[labelPodUID])
	})
	if len(sandboxes) == 0 {
		return "", fmt.Errorf("pod %s: %w", pod, ErrNoSandbox)
	}
	newest := slices.MaxFunc(sandboxes, func(a, b *cri.PodSandbox) int {
		return int(min(max(a.CreatedAt-b.CreatedAt, -1), 1))
	})
	status, err := client.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: newest.GetId(), Verbose: true})
	if err != nil {
		return "", fmt.Errorf("status of sandbox %s of pod %s: %w", newest.GetId(), pod, err)
	}
	if status.GetStatus().GetLinux().GetNamespaces().GetOptions().GetNetwork() == cri.NamespaceMode_NODE {
		return "", fmt.Errorf("pod %s uses the node's network: %w", pod, ErrNoSandbox)
	}
	path, err := networkNamespace(status.GetInfo()["info"])
	if err != nil {
		return "", fmt.Errorf("sandbox %s of pod %s: %w", newest.GetId(), pod, err)
	}
	return path, nil
}

// networkNamespace reads the sandbox's OCI specification, as containerd and CRI-O give it in their verbose status.
func networkNamespace(info string) (string, error) {
	var v struct {
		RuntimeSpec struct {
			Linux struct {
				Namespaces []struct {
					Type string `json:"type"`
					Path string `json:"path"`
				} `json:"namespaces"`
			} `json:"linux"`
		} `json:"runtimeSpec"`
	}
	if err := json.Unmarshal([]byte(info), &v); err != nil {
		return "", fmt.Errorf("the container runtime's verbose status can't be read: %w", err)
	}
	for _, n := range v.RuntimeSpec.Linux.Namespaces {
		if n.Type == "network" && n.Path != "" {
			return n.Path, nil
		}
	}
	return "", ErrNoSandbox
}
