package xds
import ("testing";"fmt";"math/rand/v2";"time";"runtime")
func TestDbg(t *testing.T){
 cur:=make(chan []byte,1)
 _=cur
 rnd:=rand.New(rand.NewPCG(1,2))
 start:=time.Now(); n:=0
 tick:=time.AfterFunc(1,func(){}); 
 for time.Since(start)<15*time.Second {
   d:=make([]byte, 4*rnd.IntN(400)); for i:=range d{d[i]=byte(rnd.UintN(256))}
   tick.Stop()
   tick=time.AfterFunc(3*time.Second,func(){ b:=make([]byte,1<<20); fmt.Println(string(b[:runtime.Stack(b,true)])); panic("hang") })
   fuzzOne(t,d); n++
 }
 tick.Stop()
 fmt.Println(n)
}
